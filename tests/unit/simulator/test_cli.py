"""`penstock simulate` as a user calls it: laws, traces, and what is wrong with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.formats.plans import write_plan
from penstock.verbs import VERBS
from tests.support.builders import a_model_plan, a_plan, a_pool

TRACES = {
    "ours": "arrival_us,model,samples\n0,m,1\n500000,m,2\n1999999,m,1\n",
    "requests": "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:48.0000000,9,9\r\n2023-11-16 18:15:46.0000010,9,9\r\n"
    "2023-11-16 18:15:46.5,9,9\r\n",
    "calls": "app,func,end_timestamp,duration\na,f,3.5,1.5\na,g,0.000001,0\na,f,1,0.5\n",
    "counts": "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,2,0\no,a,g,http,0,1\n",
}


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.json"
    one = a_model_plan([a_pool(latencies_us=(1_000, 1_500))], throughput_rps=20.0)
    path.write_text(write_plan(a_plan(one)))
    return str(path)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["simulate", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def overall(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)["overall"]
    return figures


@pytest.mark.parametrize(
    "law",
    [
        "constant",
        "poisson",
        "gamma:cv=2",
        "mmpp:burst=3,share=0.2,length=0.5",
        "diurnal:peak=1.5,period=10",
    ],
)
def test_every_law_is_simulated_at_the_load_asked_for(
    law: str, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--arrivals", law, "--load", "2", "--duration", "20", "--json")
    assert call(plan, *options) == 0
    first = overall(capsys)
    assert first["offered_rps"] == pytest.approx(40.0, rel=0.15)
    assert call(plan, *options) == 0
    assert overall(capsys) == first


@pytest.mark.parametrize("name", TRACES)
def test_every_trace_is_simulated(
    name: str, plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / f"{name}.csv"
    trace.write_bytes(TRACES[name].encode())
    assert call(plan, "--trace", str(trace), "--json") == 0
    assert overall(capsys)["requests"] == 3
    assert call(plan, "--trace", str(trace), "--rate-scale", "7", "--json") == 0
    assert overall(capsys)["requests"] == 21
    window = ":60" if name == "counts" else ":1.999999"
    assert call(plan, "--trace", str(trace), "--trace-window", window, "--json") == 0
    assert overall(capsys)["requests"] == 2


def test_a_trace_is_fitted_to_a_load_factor(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, out = tmp_path / "calls.csv", tmp_path / "out.csv"
    trace.write_text(TRACES["calls"])
    asked = ("--trace", str(trace), "--load", "0.5", "--out", str(out), "--json")
    assert call(plan, *asked) == 0
    assert overall(capsys)["offered_rps"] == pytest.approx(10.0, rel=0.05)
    rows = csv.DictReader(out.read_text(encoding="utf-8").splitlines())
    instants = [int(row["arrival_us"]) for row in rows]
    assert {0, 499_999, 1_999_999} <= set(instants)
    assert max(instants) < 2_000_000


def test_a_trace_ends_after_its_duration(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "ours.csv"
    trace.write_text(TRACES["ours"])
    assert call(plan, "--trace", str(trace), "--duration", "1", "--json") == 0
    assert overall(capsys)["offered_rps"] == 3.0  # samples, over 1 s
    assert call(plan, "--trace", str(trace), "--duration", "60", "--json") == 0
    assert overall(capsys)["offered_rps"] == pytest.approx(2.0)  # the trace has no more than 2 s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arrivals", "weibull"), "unknown arrival law 'weibull'; known: constant, diurnal, ga"),
        (("--arrivals", "gamma:cv=-1"), "arrivals: gamma: cv: expected a number from 1e-06 to 10"),
        (("--rate-scale", "2"), "--rate-scale: expected --trace with it, found none"),
        (("--trace", "TRACE", "--arrivals", "poisson"), "--arrivals: expected a law or a trace"),
        (("--trace", "TRACE", "--trace-window", "3"), "--trace-window: expected FROM:TO in secon"),
        (
            ("--trace", "TRACE", "--trace-window", "99:"),
            "trace: expected at least one request in its window, found none",
        ),
        (
            ("--trace", "TRACE", "--rate-scale", "2", "--load", "1"),
            "--rate-scale: expected either it or --load, found both",
        ),
        (("--trace", "OTHER"), "unknown model of the trace 'x'; known: m"),
        (("--trace", "WRONG"), "WRONG: line 2, end_timestamp: expected seconds, from 0 to 1e+12"),
        (("--straggler", "often"), "straggler: expected PROBABILITY:FACTOR, such as 0.01:4, fou"),
        (("--profile-error", "x=1.1"), "unknown pool of the plan 'x'; known: p0"),
        (("--fail", "p0/0"), "fail: expected TARGET@START or TARGET@START+LENGTH, such as fas"),
        (("--fail", "p0/7@1s"), "fail: target: expected an instance such as 'p0/0', a GPU such "),
        (("--mtbf", "5"), "mtbf: expected mttr with it, found none"),
        (("--load", "1e9"), "load: rate: expected at most 20,000,000 requests in all, found 2e+10"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    plan: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("TRACE").write_text(TRACES["ours"])
    Path("OTHER").write_text("arrival_us,model,samples\n0,x,1\n")
    Path("WRONG").write_text("app,func,end_timestamp,duration\na,f,soon,1\n")
    assert call(plan, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}")
    assert (said.err.count("\n"), said.out) == (1, "")


def test_the_greatest_load_is_found(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--find-max-load", "0.99", "--seeds", "2", "--duration", "2", "--json")
    assert call(plan, *options) == 0
    found = json.loads(capsys.readouterr().out)["models"]["m"]
    assert len(found["loads"]) == 2
    assert found["sustained_rps"] == pytest.approx(found["load"] * found["planned_rps"])
    assert call(plan, "--find-max-load", "0.99", "--seeds", "1", "--duration", "2") == 0
    assert "load sustained" in capsys.readouterr().out


@pytest.mark.parametrize(
    "extra",
    [("--load", "0.5"), ("--plot", "there.png"), ("--policy", "hope"), ("--fail", "p0/0@1s")],
)
def test_what_does_not_go_with_finding_a_load_is_refused(
    extra: tuple[str, str], plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(plan, "--find-max-load", "0.99", *extra) == 2
    assert "error:" in capsys.readouterr().err


def test_all_that_can_go_wrong_is_reached_and_told(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        *("--duration", "20", "--load", "2", "--arrivals", "constant", "--jitter", "0.1"),
        *("--straggler", "0.2:3", "--profile-error", "0.1", "--profile-error", "all=1.5"),
        *("--wire-factor", "2", "--fail", "p0/0@5s+1s", "--fail", "fast-0:0@10s+500ms"),
        *("--mtbf", "5", "--mttr", "0.5", "--detection", "0.1"),
    )
    assert call(plan, *options, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["disturbances"]["losses"] >= 3
    assert 40 < told["disturbances"]["stragglers"] < 250
    assert told["disturbances"]["profile_factors"]["p0"] != 1.5
    assert told["overall"]["refusals"]["unavailable"] > 40
    assert told["overall"]["requests"] == 800
    model = told["models"]["m"]
    assert set(model["queue"]) == {"mean", "p50", "p95", "p99", "most"}
    assert sum(model["batches"]["p0"].values()) > 100
    (use,) = told["gpu_classes"].values()
    assert 0 < use["useful_utilisation"] <= use["utilisation"] < 1
    assert "cost" not in told
    assert call(plan, *options) == 0
    table = capsys.readouterr().out
    assert "usefully" in table
    assert "instances lost" in table


def test_prices_of_a_plan_are_told(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(Path(plan).read_text())
    for each in document["gpu_classes"]:
        each["price_per_hour"] = 3.6
    Path(plan).write_text(json.dumps(document))
    options = ("--arrivals", "constant", "--load", "1", "--duration", "10")
    assert call(plan, *options, "--json") == 0
    # 20 samples/s for 0.001 a second.
    told = json.loads(capsys.readouterr().out)["cost"]
    assert told == {"per_hour": 3.6, "per_million_in_time": pytest.approx(50)}
    assert call(plan, *options) == 0
    assert "3.60 per hour, 50.00 per million samples in" in capsys.readouterr().out

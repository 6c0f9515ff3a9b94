from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.formats.plans import read_plan
from penstock.verbs import verbs_of
from planner import frontier
from planner.variants import Planned
from tests.unit.planner.fleets import mixed_fleet
from tests.unit.planner.long import long_fleet, write_fleet

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_fleet(*mixed_fleet(slo_ms=45), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        run("planner", verbs_of("planner"), arguments)
    code = exited.value.code
    return code if isinstance(code, int) else 0


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_plan_writes_a_plan_that_check_and_explain_read(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "cluster.yaml", "--out", "build/plan.json") == 0
    assert "125.0 samples/s" in capsys.readouterr().out
    plan = read_plan((fleet / "build/plan.json").read_text(encoding="utf-8"), "plan.json")
    assert plan.solve.objective_rps == pytest.approx(125)
    assert call("check", "build/plan.json") == 0
    assert "verified" in capsys.readouterr().out
    assert call("explain", "build/plan.json") == 0
    assert "blocks 0-1 on 1× fast" in capsys.readouterr().out


@pytest.mark.usefixtures("fleet")
def test_json_is_all_that_stdout_gets(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--json", "--solver", "gscip") == 0
    assert json.loads(capfd.readouterr().out)["schema"] == "penstock.plan/1"
    assert call("check", "plan.json", "--json") == 0
    assert json.loads(capfd.readouterr().out)["verified"] is True
    assert call("explain", "plan.json", "--json") == 0
    assert json.loads(capfd.readouterr().out)["gpus_used"] == {"fast": 1, "slow": 2}


@pytest.mark.usefixtures("fleet")
def test_options_override_the_cluster_file(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--margin", "0.1", "--max-stages", "1", "--max-batch", "1", "--seed", "3")
    assert call("plan", "cluster.yaml", *options, "--time-limit", "5", "--json") == 0
    plan = printed(capsys)
    assert plan["models"][0]["margin_us"] == 4500
    assert plan["solve"]["seed"] == 3
    assert {pool["position"] for pool in plan["models"][0]["pools"]} == {0}
    assert call("check", "plan.json") == 2
    assert "misses the SLO by 2000 µs" in capsys.readouterr().err
    assert call("check", "plan.json", "--margin", "0.1") == 0


def test_the_pool_map_is_drawn(fleet: Path) -> None:
    assert call("plan", "cluster.yaml", "--plot", "pools.png") == 0
    assert (fleet / "pools.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("fleet")
def test_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--no-partition", "--json") == 0
    assert printed(capsys)["solve"]["objective_rps"] == pytest.approx(62.5)


@pytest.mark.usefixtures("fleet")
def test_infeasible_is_one_line_and_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--margin", "0.9") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: infeasible: model digits: SLO: the fastest path")
    assert captured.err.count("\n") == 1


def test_a_changed_input_is_noticed(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml") == 0
    rows = fleet / "profiles/digits/slow.csv"
    rows.write_text(rows.read_text(encoding="utf-8").replace("6000", "6001"), encoding="utf-8")
    capsys.readouterr()
    assert call("check", "plan.json", "--json") == 2
    told = printed(capsys)
    assert told["verified"] is False
    assert "input profile digits slow: has changed since the plan was made" in told["faults"]


def test_a_missing_profile_is_named(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fleet / "profiles/digits/slow.json").unlink()
    assert call("plan", "cluster.yaml") == 2
    assert "profiles/digits/slow.json: expected a file" in capsys.readouterr().err


def test_a_repository_binds_the_plan_to_its_newest_blocks(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("2", "10"):
        directory = fleet / "models" / "digits" / version
        directory.mkdir(parents=True)
        (directory / "blocks.json").write_text(version, encoding="utf-8")
    assert call("plan", "cluster.yaml", "--repository", "models", "--json") == 0
    digest = "4a44dc15364204a80fe80e9039455cc1608281820fe2b24f1e5233ade6af1dd5"  # of "10"
    assert printed(capsys)["models"][0]["blocks_digest"] == digest
    assert call("plan", "cluster.yaml", "--repository", "profiles") == 2
    assert "expected a version such as 1/blocks.json" in capsys.readouterr().err


@pytest.mark.usefixtures("fleet")
def test_planning_imports_neither_torch_nor_grpc() -> None:
    code = (
        "import sys, planner.cli, planner.planning, planner.files, planner.explain\n"
        "print([name for name in ('torch', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("options", "formulation", "packing"),
    [
        ((), "general", "whole-gpu"),
        (("--packing", "per-stage", "--rebatch"), "general", "per-stage"),
        (("--mode", "compat"), "compat", "per-stage"),
    ],
)
def test_modes_and_packings(
    options: tuple[str, ...], formulation: str, packing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "cluster.yaml", *options, "--json") == 0
    plan = printed(capsys)
    assert plan["solve"]["formulation"] == formulation
    assert plan["packing"] == packing
    assert call("check", "plan.json", *options) == 0


def test_objectives(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fleet / "cluster.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("slo_ms: 45", "slo_ms: 45\n  rate_rps: 60"), encoding="utf-8")
    assert call("plan", "cluster.yaml", "--objective", "goodput", "--gap", "0", "--json") == 0
    assert printed(capsys)["solve"]["objective"] == "goodput"
    assert call("plan", "cluster.yaml", "--objective", "fewest-gpus", "--json") == 0
    assert printed(capsys)["solve"]["value"] == 1
    assert call("plan", "cluster.yaml", "--objective", "fewest-gpus", "--spare-gpus", "1") == 3


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--mode", "compat", "--packing", "whole-gpu"), "planner.packing"),
        (("--mode", "compat", "--rebatch"), "planner.rebatch"),
        (("--objective", "least-cost"), "gpu_classes[0].price_per_hour"),
        (("--objective", "goodput"), "cluster.yaml: models[0].rate_rps"),
        (("--objective", "fewest-gpus"), "cluster.yaml: models[0].rate_rps"),
        (("--max-price", "3"), "gpu_classes[0].price_per_hour"),
        (("--spare-gpus", "9"), "planner.spare_gpus"),
        (("--plot", "map.doc"), "map.doc"),
        (("--running", "nothing.json"), "nothing.json"),
    ],
)
def test_options_that_contradict_the_file(
    options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call("plan", "cluster.yaml", *options)
    captured = capsys.readouterr()
    assert code == 2
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--margin", "nan"),
        ("--margin", "1"),
        ("--margin", "automatic"),
        ("--max-price", "inf"),
        ("--time-limit", "0"),
        ("--gap", "nan"),
        ("--gap", "-1"),
        ("--seed", "-1"),
        ("--max-stages", "0"),
        ("--objective", "fastest"),
    ],
)
def test_options_out_of_range(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", option, value) == 2
    assert option in capsys.readouterr().err


def test_margins_are_found_and_told(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml", "--margin", "auto", "--time-limit", "4") == 0
    told = capsys.readouterr().err
    assert "sustains" in told
    plan = json.loads((fleet / "plan.json").read_text(encoding="utf-8"))
    for model in plan["models"]:
        assert f"{model['model']}: margin_ms: {model['margin_us'] / 1_000:g}" in told


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--no-partition",), "--no-partition"),
        (("--arrivals", "gama"), "gamma"),
        (("--policy", "hope"), "reservation"),
    ],
)
def test_margins_cannot_be_found_for_everything(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "cluster.yaml", "--margin", "auto", *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["goodput", "least-cost", "fewest-gpus"])
@pytest.mark.parametrize("in_file", [True, False])
def test_plan_and_check_say_alike_that_a_rate_is_missing(
    objective: str, in_file: bool, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", "cluster.yaml") == 0
    path = fleet / "cluster.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("network_gbps", "price_per_hour: 1.0\n  network_gbps")
    if in_file:
        text = re.sub("objective: .*", f"objective: {objective}", text)
    path.write_text(text, encoding="utf-8")
    asked = () if in_file else ("--objective", objective)
    capsys.readouterr()
    expected = f"a rate, which objective {objective} needs of every model, found none"
    for arguments in (("plan", "cluster.yaml"), ("check", "plan.json")):
        assert call(*arguments, *asked) == 2
        told = capsys.readouterr().err
        assert told == f"error: cluster.yaml: models[0].rate_rps: expected {expected}\n"


# File, what is in it, what it becomes, what the error names.
WRONG = {
    "negative count": ("cluster.yaml", "count: 3", "count: -3", "gpu_classes[1].count"),
    "no GPU": ("cluster.yaml", "count: 3", "count: 0", "gpu_classes[1].count"),
    "zero SLO": ("cluster.yaml", "slo_ms: 45.0", "slo_ms: 0", "models[0].slo_ms"),
    "SLO not a number": ("cluster.yaml", "slo_ms: 45.0", "slo_ms: .nan", "models[0].slo_ms"),
    "unknown field": ("cluster.yaml", "slo_ms: 45.0", "slo: 45.0", "models[0]"),
    "unknown class": (
        "cluster.yaml",
        "slo_ms: 45.0",
        "slo_ms: 45.0\n  gpu_classes: [faster]",
        "models[0].gpu_classes[0]",
    ),
    "two classes of one name": ("cluster.yaml", "name: slow", "name: fast", "gpu_classes[1].name"),
    "no YAML": ("cluster.yaml", "gpu_classes:", "gpu_classes: [", "line"),
    "margin over SLO": (
        "cluster.yaml",
        "slo_ms: 45.0",
        "slo_ms: 45.0\n  margin_ms: 50",
        "models[0].margin_ms",
    ),
    "latency not a number": ("profiles/digits/slow.csv", "6000", "nan", "line"),
    "latency of nothing": ("profiles/digits/slow.csv", "6000", "-1", "line"),
    "profile gap": ("profiles/digits/slow.csv", r"^3,1,1.*\n", "", "block 3"),
    "cut missing": ("profiles/digits/slow.json", r"100000,\s*", "", "cut_bytes"),
    "cuts that differ": ("profiles/digits/slow.json", "100000", "90000", "cut_bytes"),
    "other blocks": ("profiles/digits/slow.json", r'"blocks": 4', '"blocks": 5', "cut_bytes"),
    "no JSON": ("profiles/digits/slow.json", r"\{", "", "line"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_wrong_file_is_one_line_and_exit_code_2(
    case: str, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, before, after, told = WRONG[case]
    path = fleet / name
    text = path.read_text(encoding="utf-8")
    changed = re.sub(before, after, text, count=1, flags=re.MULTILINE)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    assert call("plan", "cluster.yaml") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert path.name in captured.err or path.stem in captured.err
    assert told in captured.err


@pytest.mark.usefixtures("fleet")
def test_planning_again_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml") == 0
    assert call("plan", "cluster.yaml", "--running", "plan.json", "--out", "new.json") == 0
    told = "of 3 running instances 3 are kept, 0 stopped; 0 are started"
    assert told in capsys.readouterr().err
    assert call("diff", "plan.json", "new.json") == 0
    assert capsys.readouterr().out == "no difference; 3 instances kept\n"


@pytest.mark.usefixtures("fleet")
def test_diff_ends_well_though_plans_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml") == 0
    assert call("plan", "cluster.yaml", "--no-partition", "--out", "whole.json") == 0
    capsys.readouterr()
    assert call("diff", "plan.json", "whole.json", "--json") == 0
    assert printed(capsys)["same"] is False
    assert call("diff", "plan.json", "whole.json") == 0
    assert "125.0 → 62.5 samples/s  -50.0%" in capsys.readouterr().out


@pytest.mark.usefixtures("fleet")
def test_explain_with_the_inputs_says_what_more_is_worth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("plan", "cluster.yaml", "--margin", "0.3") == 0
    capsys.readouterr()
    assert call("explain", "plan.json", "--cluster", "cluster.yaml", "--json") == 0
    told = printed(capsys)
    assert told["outlook"]["next_gpu"] == "fast"
    assert told["models"][0]["margin_us"] == 13_500
    assert call("explain", "plan.json", "--cluster", "cluster.yaml") == 0
    assert "The next GPU should be: fast" in capsys.readouterr().out


def test_explain_refuses_another_cluster(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "cluster.yaml") == 0
    path = fleet / "cluster.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("count: 3", "count: 4"), encoding="utf-8")
    assert call("explain", "plan.json", "--cluster", "cluster.yaml") == 2
    assert "plan.json: inputs cluster" in capsys.readouterr().err


def test_the_curve(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--slo-scale", "2,0.2,1", "--plot", "curve.png")
    assert call("curve", "cluster.yaml", *options, "--json") == 0
    points = printed(capsys)["points"]
    assert [each["scale"] for each in points] == [0.2, 1.0, 2.0]
    assert points[0]["pooled"]["infeasible"] is True
    assert points[1]["pooled"]["found"] == pytest.approx(125)
    assert points[1]["whole"]["found"] == pytest.approx(62.5)
    assert (fleet / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert call("curve", "cluster.yaml", "--slo-scale", "1") == 0
    assert "    1" in capsys.readouterr().out


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("scales", ["", "0", "1,-1", "nan", "one", "1,,2"])
def test_scales_that_are_none(scales: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("curve", "cluster.yaml", "--slo-scale", scales) == 2
    assert "--slo-scale: expected numbers of more than 0" in capsys.readouterr().err


def test_the_frontier(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--points", "2", "--plot", "frontier.png")
    assert call("frontier", "cluster.yaml", *options, "--json") == 0
    high, low = printed(capsys)["points"]
    assert high["level_rps"] == pytest.approx(125, rel=1e-5)
    assert (high["spent"], low["spent"], low["unit"]) == (3, 1, "gpus")
    assert (fleet / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert call("frontier", "cluster.yaml", "--points", "2") == 0
    assert "3 GPUs  1 fast, 2 slow" in capsys.readouterr().out


def test_the_frontier_tells_of_levels_without_a_plan(
    fleet: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Planned(plan=None, why="none in time"), Planned(plan=None, infeasible=True, why="no")]
    answers = iter(found)
    monkeypatch.setattr(frontier, "try_plan", lambda *_, **__: next(answers))
    options = ("--points", "2", "--plot", "frontier.svg")
    assert call("frontier", "cluster.yaml", *options, "--json") == 0
    high, low = printed(capsys)["points"]
    for point, planned in ((high, found[0]), (low, found[1])):
        assert (point["spent"], point["bound"], point["gpus"]) == (None, None, {})
        assert (point["infeasible"], point["why"]) == (planned.infeasible, planned.why)
    drawn = (fleet / "frontier.svg").read_text(encoding="utf-8")
    assert "no plan found in time" in drawn
    assert "infeasible: there is no plan" in drawn


@pytest.mark.parametrize("verb", ["curve", "frontier"])
def test_a_picture_in_an_unknown_format_is_refused_at_once(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(verb, "cluster.yaml", "--plot", "picture.doc") == 2  # there is no cluster.yaml
    assert "picture.doc" in capsys.readouterr().err


def test_ctrl_c_hands_over_the_best_plan_so_far(tmp_path: Path) -> None:
    write_fleet(*long_fleet(), tmp_path)
    code, told = interrupted_while_searching(tmp_path)
    assert code == 0
    assert re.search(r"^interrupted: the best plan found so far, \d+\.\d\d% from", told, re.M)
    assert "Traceback" not in told
    assert "terminate" not in told
    plan = read_plan((tmp_path / "plan.json").read_text(encoding="utf-8"), "plan.json")
    assert plan.solve.status == "feasible"
    assert plan.solve.gap > 0


def test_ctrl_c_before_there_is_a_plan(tmp_path: Path) -> None:
    write_fleet(*mixed_fleet(slo_ms=45), tmp_path)
    code = (
        "import planner.planning, penstock.command, penstock.verbs, signal\n"
        "def make_plan(*inputs, **options): signal.raise_signal(signal.SIGINT)\n"
        "planner.planning.make_plan = make_plan\n"
        "penstock.command.run('p', penstock.verbs.verbs_of('planner'), ['plan', 'cluster.yaml'])"
    )
    done = in_process("-c", code, cwd=tmp_path)
    _, told = done.communicate(timeout=60)
    assert done.returncode == 130
    assert told == "interrupted before any plan was found\n"
    assert not (tmp_path / "plan.json").exists()


SEARCHING = "a plan is known, a solver is at work on a better one"
TOLD_WHILE_SEARCHING = f"""
import sys
from planner import solution, solve
with_flows, start = solution.with_flows, solve._Runner.start
known = []

def noted(*given):
    known.append(with_flows(*given))
    return known[-1]

def told(runner):
    start(runner)
    if known:
        print({SEARCHING!r}, file=sys.stderr, flush=True)

solution.with_flows, solve._Runner.start = noted, told
from penstock.command import run
from penstock.verbs import VERBS
run("penstock", VERBS, ["plan", "cluster.yaml"])
"""


def interrupted_while_searching(root: Path) -> tuple[int, str]:
    """Plan what takes a minute, press Ctrl-C on the way; return the exit code and stderr."""
    process = in_process("-c", TOLD_WHILE_SEARCHING, cwd=root)
    assert process.stderr is not None
    assert f"{SEARCHING}\n" in process.stderr  # waits for it
    process.send_signal(signal.SIGINT)
    asked_s = time.monotonic()
    _, told = process.communicate(timeout=40)
    assert time.monotonic() - asked_s < 20
    return process.returncode, told


def in_process(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

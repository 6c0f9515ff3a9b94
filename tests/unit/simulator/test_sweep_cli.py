"""`penstock sweep` as a user calls it: files, pictures, going on, interrupts and errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.formats.plans import write_plan
from penstock.verbs import VERBS
from simulator.sweeps import crew
from simulator.sweeps import rows as sweep_rows
from simulator.sweeps.rows import Rows
from simulator.sweeps.sweep import Run, Sweep
from tests.support.builders import a_model_plan, a_plan, a_pool

ROOT = Path(__file__).parents[3]
QUICK = ("--loads", "0.5,2", "--seeds", "2", "--duration", "0.5", "--no-pictures", "--jobs", "1")
TABLES = ("runs.csv", "utilisation.csv", "sweep.json")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for name, rate in (("plan", 90.0), ("other", 60.0)):
        pools = [
            a_pool("p0", latencies_us=(10_000, 12_000)),
            a_pool("p1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(9_000, 12_000)),
        ]
        written = write_plan(a_plan(a_model_plan(pools, throughput_rps=rate)))
        Path(f"{name}.json").write_text(written)
    return "plan.json"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["sweep", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def contents(directory: str) -> list[bytes]:
    return [(Path(directory) / name).read_bytes() for name in TABLES]


def rows(directory: str) -> list[dict[str, str]]:
    with (Path(directory) / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_a_table_rows_and_pictures(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = ("--policy", "reservation", "--policy", "triton")
    assert call(plan, *policies, *QUICK[:-3], "--out", "build/out") == 0
    said = capsys.readouterr()
    assert "triton" in said.out
    assert "held" in said.out
    assert "wrote sweep.json, runs.csv, utilisation.csv, attainment.png" in said.err
    names = {each.name for each in Path("build/out").iterdir()}
    assert names == {*TABLES, "attainment.png", "utilisation.png", "timeline.png"}
    found = rows("build/out")
    assert len(found) == 2 * 2 * 2 * 2
    assert {row["policy"] for row in found} == {"reservation", "triton"}
    settings = json.loads(Path("build/out/sweep.json").read_text())
    assert settings["schema"] == "penstock.sweep/1"
    assert settings["arrivals"] == {"law": "poisson", "span_us": 500_000}
    assert settings["seeds"] == [0, 1000]


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_other_formats(plan: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = (*QUICK[:-3], "--jobs", "1", "--format", suffix, "--out", "out", "--json")
    assert call(plan, "other.json", "--base", "other.json", *options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"][3:] == [
        f"out/{name}.{suffix}" for name in ("attainment", "utilisation", "timeline")
    ]
    picture = Path(told["files"][3]).read_text()
    for words in ("plan (holds", "other (holds", "target 99%", "1 = 60 samples/s for every plan"):
        assert words in picture


def test_rows_do_not_depend_on_the_number_of_processes(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--loads", "0.5,0.9,2", "--seeds", "2", "--duration", "0.5", "--no-pictures")
    told = []
    for jobs in ("1", "3"):
        assert call(plan, *options, "--jobs", jobs, "--out", jobs, "--json") == 0
        told.append(json.loads(capsys.readouterr().out)["series"])
    assert contents("1") == contents("3")
    assert told[0] == told[1]


def test_json_tells_where_the_target_is_missed(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--loads", "0.5,4", "--arrivals", "constant", "--out", "out", "--json")
    assert call(plan, *QUICK, *options) == 0
    said = capsys.readouterr()
    (series,) = json.loads(said.out)["series"]
    assert said.err == ""
    assert series["held"] == {"up_to": 0.5, "fails_at": 4.0}
    assert [point["holds"] for point in series["points"]] == [True, False]
    assert series["points"][1]["worst_model"] == "m"
    assert series["points"][0]["uses"]["slow"]["gpus"] == 8


def test_a_broken_sweep_goes_on_to_the_same_bytes(
    plan: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(plan, *QUICK, "--out", "whole") == 0
    monkeypatch.setattr(sweep_rows, "rows_of", InterruptedAt(3))
    assert call(plan, *QUICK, "--out", "broken") == 130
    assert "interrupted: 2 of 4 runs are in broken; --resume goes on" in capsys.readouterr().err
    assert len(rows("broken")) == 2 * 2
    counted = InterruptedAt(99)
    monkeypatch.setattr(sweep_rows, "rows_of", counted)
    assert call(plan, *QUICK, "--out", "broken", "--resume") == 0
    assert counted.calls == 2
    assert contents("broken") == contents("whole")
    assert call(plan, *QUICK, "--out", "broken", "--resume") == 0
    assert counted.calls == 2


class InterruptedAt:
    """Simulates until a run, where Ctrl-C is pressed."""

    def __init__(self, call: int) -> None:
        self.calls, self._last = 0, call
        self._rows_of = sweep_rows.rows_of

    def __call__(self, sweep: Sweep, run: Run) -> Rows:
        self.calls += 1
        if self.calls == self._last:
            raise KeyboardInterrupt
        return self._rows_of(sweep, run)


def test_a_resumed_sweep_must_be_the_same(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(plan, *QUICK, "--out", "out") == 0
    capsys.readouterr()
    before = contents("out")
    for changed, key in (
        (("--loads", "0.5"), "loads"),
        (("--jitter", "0.1"), "scenario"),
        (("--seed", "1"), "seeds"),
        (("--arrivals", "constant"), "arrivals"),
        (("--base", "other.json"), "base"),
    ):
        assert call(plan, *QUICK, *changed, "--out", "out", "--resume") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: out/sweep.json: {key}: expected ")
        assert said.count("\n") == 1
    Path(plan).write_text(Path(plan).read_text().replace("90.0", "91.0"))
    assert call(plan, *QUICK, "--out", "out", "--resume") == 2
    assert "out/sweep.json: plans: expected" in capsys.readouterr().err
    assert contents("out") == before


def test_force_replaces_a_sweep_and_nothing_else(plan: str) -> None:
    assert call(plan, *QUICK, "--out", "out") == 0
    mine = Path("out/notes.txt")
    mine.write_text("mine")
    Path("out/attainment.svg").write_text("old")
    assert call(plan, *QUICK, "--seed", "7", "--out", "out", "--force") == 0
    assert {row["seed"] for row in rows("out")} == {"7", "1007"}
    assert mine.read_text() == "mine"
    assert not Path("out/attainment.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loads", "0.5:1:0"), "--loads: STEP: expected a number from 0.001 to 1,000, found 0"),
        (("--loads", "x"), "--loads: expected FROM:TO:STEP or numbers"),
        (("--policy", "hope"), "unknown batching policy 'hope'"),
        (("--policy", "fixed", "--policy", "fixed"), "--policy: expected each one once"),
        (("--routing", "hope"), "unknown routing policy 'hope'"),
        (("--arrivals", "weibull"), "unknown arrival law 'weibull'"),
        (("--warmup", "9"), "simulate: warmup: expected less than the duration"),
        (("--fail", "nobody@1s"), "fail"),
        (("--mtbf", "3"), "mtbf: expected mttr with it"),
        (("--resume", "--force"), "--resume: expected either it or --force, found both"),
        (("--out", "plan.json"), "--out: expected a directory, found plan.json, a file"),
        (("--out", "full"), "--out: expected a new or an empty directory; --resume goes on"),
        (("--out", "full", "--resume"), "--resume: expected sweep.json in full, found none"),
        (("plan.json",), "PLAN: expected each one once, found plan.json 2 times"),
        (("binary.json",), "binary.json: expected text in UTF-8"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    Path("binary.json").write_bytes(b"\xff\xfe")
    assert call(plan, *QUICK, "--out", "out", *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not Path("out").exists()
    assert [each.name for each in Path("full").iterdir()] == ["file"]


def test_an_error_of_one_run_keeps_the_others(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--loads", "0.01,1000", "--seeds", "1", "--duration", "400", "--no-pictures")
    assert call(plan, *options, "--jobs", "1", "--out", "out") == 2
    assert "at most 20,000,000 requests" in capsys.readouterr().err
    assert {row["load"] for row in rows("out")} == {"0.01"}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_ends_all_processes_and_keeps_what_is_finished(plan: str) -> None:
    command = [sys.executable, "-m", "penstock", "sweep", plan, "--out", "out", "--jobs", "2"]
    options = ["--loads", "0.5:0.9:0.1", "--seeds", "1000", "--duration", "5", "--json"]
    # A group of its own, as a terminal makes: Ctrl-C reaches every process of it.
    sweep = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (Path("out/runs.csv").exists() and len(rows("out")) > 0):
            assert time.monotonic() < deadline
            assert sweep.poll() is None
        os.killpg(sweep.pid, signal.SIGINT)
        out, err = sweep.communicate(timeout=20)
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
    assert sweep.returncode == 130
    assert out == ""
    assert err.startswith("interrupted: ")
    assert err.count("\n") == 1
    assert len(rows("out")) >= 2
    assert len(rows("out")) % 2 == 0
    # Python's own tracker of resources ends when it sees that its parent has.
    deadline = time.monotonic() + 10
    while processes_of(sweep.pid):
        assert time.monotonic() < deadline


def processes_of(session: int) -> list[str]:
    """Return the processes of a session that live."""
    found: list[str] = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                words = (each / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == session and words[0] != "Z":
                found.append(each.name)
    return found


def test_progress_goes_to_a_person_only(
    plan: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    told: dict[bool, Any] = {}
    for quiet in (False, True):
        extra = ("--json",) if quiet else ()
        assert call(plan, *QUICK, "--out", str(quiet), *extra) == 0
        told[quiet] = capsys.readouterr().err
    assert "runs simulated" in told[False]
    assert told[True] == ""


def test_the_crew_is_spared_for_a_single_run() -> None:
    results = list(crew.worked(os.getpgid, [0], 8))
    assert results == [(0, os.getpgid(0))]


def test_what_goes_wrong_is_in_rows_and_settings(plan: str) -> None:
    wrong = ("--straggler", "0.2:3", "--fail", "slow-0@100ms+50ms", "--profile-error", "all=1.1")
    assert call(plan, *QUICK, *wrong, "--out", "wrong") == 0
    assert call(plan, *QUICK, "--out", "right") == 0
    every = [row for row in rows("wrong") if row["model"] == "all"]
    assert all(int(row["stragglers"]) > 0 and int(row["losses"]) == 1 for row in every)
    assert all(row["losses"] == "" for row in rows("wrong") if row["model"] != "all")
    assert float(every[0]["p95_ms"]) > float(rows("right")[0]["p95_ms"])
    scenario = json.loads(Path("wrong/sweep.json").read_text())["scenario"]
    assert scenario["straggler"] == {"probability": 0.2, "factor": 3.0}
    assert scenario["fail"] == [{"target": "slow-0", "at_us": 100_000, "lasts_us": 50_000}]
    assert not {"seed", "batching", "routing"} & set(scenario)

"""`penstock replay` as a user calls it: what it says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.formats.plans import write_plan
from penstock.scheduling.dispatcher import DispatcherLimits
from penstock.verbs import VERBS
from tests.support.recording import a_header, a_log_of_mishaps, a_two_model_plan

POLICY = "reservation"


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, ["replay", *(str(each) for each in arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return a_log_of_mishaps(a_header(), requests=120)


@pytest.fixture
def log(tmp_path: Path, lines: list[str]) -> Path:
    return written(tmp_path / "run.jsonl", lines)


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_an_identical_replay_says_so(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(log) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{len(lines) - 1} entries over ")
    assert "120 requests" in said.out
    assert "attainment" in said.out
    assert said.err == ""
    assert call(log, "--json") == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert facts["identical"] is True
    assert facts["divergence"] is None
    assert facts["policy"].startswith("reservation:min_rate=")
    assert facts["limits"]["queue_samples"] == 4096
    instants = [json.loads(line)["now_us"] for line in lines[1:]]
    assert facts["span_us"] == instants[-1] - instants[0]
    assert set(facts["models"]) == {"m", "n"}
    assert 0 < facts["overall"]["attainment"] < 1


def test_a_divergence_shows_both_sides_and_what_was_open(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    index = next(n for n, line in enumerate(lines) if n > 80 and _launch_of_m(line))
    content = json.loads(lines[index])
    which = content["effects"].index(_launch_of_m(lines[index]))
    hop = content["effects"][which]["route"][0]
    place, end_us = f"effects[{which}].route[0].end_us", hop["end_us"]
    hop["end_us"] = end_us - 1
    written(log, [*lines[:index], json.dumps(content) + "\n", *lines[index + 1 :]])
    assert call(log, "--json") == 1
    found = json.loads(capsys.readouterr().out)["divergence"]
    assert (found["entry"], found["line"]) == (index, index + 1)
    assert found["differences"] == [{"place": place, "expected": end_us - 1, "found": end_us}]
    assert found["event"] == content["event"]
    assert {"waiting_samples", "open_requests", "batches"} == set(found["before"]["m"])
    assert len(found["recent"]) == 5
    assert call(log) == 1
    said = capsys.readouterr().out
    assert f"first divergence: entry {index} (line {index + 1}), at " in said
    assert " waiting, " in said
    assert "the last entries about the same, in both:" in said
    (row,) = [line for line in said.splitlines() if "route[0]" in line]
    assert "≠" in row
    (same,) = [line for line in said.splitlines() if "route[1]" in line]
    assert "≠" not in same
    assert "recorded with the same" in " ".join(said.split())


def _launch_of_m(line: str) -> dict[str, Any]:
    """Return the first batch of two stages that a line launches, or nothing."""
    effects: list[dict[str, Any]] = json.loads(line).get("effects", [])
    return next((each for each in effects if each.get("model") == "m"), {})


def test_other_rules_are_told_where_they_decide_otherwise(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(log, "--policy", "fixed:size=1,timeout_us=0") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "policy fixed:size=1,timeout_us=0" in said
    assert "here these decide differently for the first time" in said
    assert "so the replay stops" in said
    assert (
        call(log, "--routing", "least-queueing", "--policy", POLICY) == 0
    )  # the same, spelled out
    capsys.readouterr()
    assert call(log, "--queue-samples", "4095") == 0  # more than ever wait
    assert "It was recorded with other rules" in capsys.readouterr().out
    assert call(log, "--queue-samples", "1", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["as_recorded"] is False
    assert "shed" in json.dumps(found["divergence"]["found"])


def test_recorded_limits_are_kept(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = DispatcherLimits(queue_samples=3, rebookings=0, stall_us=9)
    written(log, a_log_of_mishaps(a_header(limits=limits), requests=120))
    assert call(log, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["limits"] == {"queue_samples": 3, "rebookings": 0, "stall_us": 9}
    assert said["overall"]["refusals"]["shed"] > 0


def test_a_log_without_a_header_needs_its_rules(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written(log, lines[1:])
    for options in ((), ("--policy", POLICY), ("--routing", "least-queueing")):
        assert call(log, *options) == 2
        said = capsys.readouterr().err
        assert f"{log} has no header that says" in said
        assert said.count("\n") == 1
    assert call(log, "--policy", POLICY, "--routing", "least-queueing") == 0
    capsys.readouterr()
    assert call(log, "--policy", "fixed", "--routing", "least-queueing") == 1
    assert "does not say what it was recorded with" in " ".join(capsys.readouterr().out.split())


def test_two_logs_are_laid_side_by_side(
    log: Path, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path / "other.jsonl", lines)
    assert call(log, "--against", other) == 0
    capsys.readouterr()
    written(other, lines[:60])
    assert call(log, "--against", other) == 1
    said = capsys.readouterr().out
    assert "entry 60 (line 61)" in said
    assert f"{other} ends before it" in " ".join(said.split())
    assert call(other, "--against", log) == 1
    assert f"{other} ends before it" in " ".join(capsys.readouterr().out.split())
    head = json.loads(lines[0])
    written(other, [json.dumps({**head, "routing": "round-robin"}) + "\n", *lines[1:]])
    assert call(log, "--against", other) == 0
    said = capsys.readouterr().err
    assert said == "the headers differ in routing: least-queueing and round-robin\n"
    assert call(log, "--against", other, "--policy", "fixed") == 2
    assert "--against: expected no --policy beside it" in capsys.readouterr().err


def test_another_version_is_told(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    head = json.loads(lines[0])
    written(log, [json.dumps({**head, "penstock": "0.0.1"}) + "\n", *lines[1:]])
    assert call(log) == 0
    assert "was recorded with Penstock 0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_a_last_line_that_was_cut_short_is_passed_over(
    cut: int, log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written(log, [*lines[:50], lines[50][: cut - 1] if cut < 0 else lines[50][:cut]])
    assert call(log, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["entries"] == 49
    assert said.err == f"{log}: line 51 was cut short and is passed over\n"


def test_a_last_line_that_only_lacks_its_end_is_read(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written(log, [*lines[:50], lines[50].rstrip("\n")])
    assert call(log, "--json") == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["entries"], said.err) == (50, "")


def test_the_log_of_a_frontend_that_was_killed_at_once_is_empty(
    log: Path, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written(log, lines[:1])
    assert call(log, "--json") == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 0
    written(log, [lines[0][:20]])
    assert call(log) == 2  # it does not say its rules
    assert "was cut short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (0, b'{"schema": "penstock.run-log/9"}\n', "line 1: schema: expected 'penstock.run-log/1'"),
        (0, b'{"schema": "penstock.run-log/1"}\n', "line 1: penstock: expected a value"),
        (9, b"{]\n", "line 10: line 1, column 2: expected JSON, found ']"),
        (9, b"[]\n", "line 10: expected an object of now_us, event and effects, found an empty"),
        (9, b'\xff\xfe{"a": 1}\n', "line 10: line 1, column 1: expected JSON, found "),
        (9, b'{"now_us": "\xff"}\n', "line 10: now_us: expected Unicode text, found "),
        (
            9,
            b'{"now_us":0,"event":{"kind":"Hiccup"},"effects":[]}\n',
            "line 10: event.kind: expected one of RequestArrived,",
        ),
        (
            60,
            b'{"now_us":0,"event":{"kind":"WakeUp"},"effects":[]}\n',
            "line 61: now_us: expected at least ",
        ),
        (
            60,
            b'{"now_us":999999999,"event":{"kind":"StageFinished","batch":0,"stage":-1,'
            b'"compute_us":1},"effects":[]}\n',
            "line 61: event.stage: expected at least 0, found -1",
        ),
    ],
)
def test_a_wrong_line_is_one_error_and_exit_code_2(
    number: int,
    line: bytes,
    message: str,
    log: Path,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = [each.encode() for each in lines]
    log.write_bytes(b"".join([*raw[:number], line, *raw[number + 1 :]]))
    for options in ((), ("--against", log)):
        if options and "event.stage" in message:
            continue  # nothing is replayed, so nothing is asked of it
        assert call(log, *options) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {log}, {message}")
        assert (said.err.count("\n"), said.out) == (1, "")


def test_what_is_not_there_is_one_error(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "none.jsonl") == 1
    assert "none.jsonl: No such file" in capsys.readouterr().err
    assert call(log, "--policy", "clairvoyant") == 2
    assert "unknown batching policy 'clairvoyant'" in capsys.readouterr().err


def test_a_simulation_writes_a_log_that_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, log = tmp_path / "plan.json", tmp_path / "run.jsonl"
    plan.write_text(write_plan(a_two_model_plan()), encoding="utf-8")
    options = ["--load", "5", "--duration", "3", "--jitter", "0.2", "--policy", "nexus", "--json"]
    upsets = ["--fail", "slow-0@1s+0.5s", "--straggler", "0.05:6", "--routing", "round-robin"]
    with pytest.raises(SystemExit, match="0"):
        run("penstock", VERBS, ["simulate", str(plan), *options, *upsets, "--run-log", str(log)])
    simulated: dict[str, Any] = json.loads(capsys.readouterr().out)["overall"]
    assert call(log, "--json") == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["policy"] == "nexus:size=none"
    assert said["events"]["InstanceLost"] > 0
    assert said["requests"] > 1_000
    for name in ("requests", "answered", "in_time", "attainment", "refusals"):
        assert said["overall"][name] == simulated[name]
    for name in ("p50_ms", "p99_ms"):
        assert said["overall"][name] == pytest.approx(simulated[name], rel=0.0005)
    assert '"simulated":true' in log.read_text(encoding="utf-8").splitlines()[0]

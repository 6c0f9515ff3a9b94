"""The bench of stalls, once and briefly: real processes, real sockets, memory that is full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from bench import stalls


def test_a_short_run_tells_every_window_and_what_is_held(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(stalls.main)
    options = ["--cases", "memory-full", "--rounds", "2", "--seconds", "1", "--rate", "30"]
    result = CliRunner().invoke(app, [*options, "--out-dir", str(tmp_path)])
    lines: list[dict[str, Any]] = [
        json.loads(each) for each in result.stdout.splitlines() if each.startswith("{")
    ]
    windows = [each for each in lines if "disturbed" in each]
    assert [(each["round"], each["disturbed"]) for each in windows] == [
        (0, False),
        (0, True),
        (1, True),
        (1, False),
    ]
    assert not any(each["refusals"] for each in windows)
    assert all(set(each["victim"]) == {"OK"} for each in windows)
    last = lines[-1]
    assert last["summary"]
    assert set(last["cases"]["memory-full"]["large_requests"]) == {"message OK", "region INTERNAL"}
    bars = {name: met for name, met in last["bars_met"].items() if name != "p99_ratio"}
    assert set(bars.values()) == {True}, last["leaks"]
    processes = {"frontend", *(f"worker-here-{each}" for each in ("0", "0.0", "1", "1.0"))}
    assert set(last["counted"]["scarce"]["held_last"]) == processes
    assert (tmp_path / "stalls.png").stat().st_size > 1_000
    assert not list(Path("/dev/shm").glob("penstock-stalls-*"))

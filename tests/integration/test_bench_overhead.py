"""The serving bench, once and briefly: real processes, real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from bench import overhead


def test_a_short_run_measures_every_load(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(overhead.main)
    options = ["--payload", "1024", "--concurrency", "1,4", "--seconds", "0.4", "--shapes"]
    result = CliRunner().invoke(app, [*options, "--soak", "0.2", "--out-dir", str(tmp_path)])
    lines: list[dict[str, Any]] = [
        json.loads(each) for each in result.stdout.splitlines() if each.startswith("{")
    ]
    points = [each for each in lines if "mode" in each]
    assert [(each["mode"], each["callers"]) for each in points] == [
        ("unary", 1),
        ("unary", 4),
        ("stream", 1),
        ("stream", 4),
    ]
    assert all(each["answers"] > 0 for each in points)
    processes = {"client", "frontend", "worker-here-0", "worker-here-0.0"}
    assert all(set(each["processor_us"]) == processes for each in points)
    assert lines[-1]["summary"]
    assert set(lines[-1]["growth"]) == processes - {"client"}
    assert lines[-1]["soak_unanswered"] == 0
    assert (tmp_path / "overhead.png").stat().st_size > 1_000

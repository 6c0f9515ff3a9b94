"""The local launcher: all ready or a clear error, and nothing left behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.local import LaunchFailed, LocalFleet, read_counter
from tests.support.fleets import START_LIMIT_S, a_fleet, descendants, still_alive, write_fleet
from tests.support.processes import ROOT

PATIENCE_S = 30.0


def eventually(holds: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_a_fleet_starts_serves_its_pages_and_leaves_nothing(tmp_path: Path) -> None:
    with a_fleet(tmp_path) as running:
        processes = set(running.fleet.process_ids.values())
        below = processes | {each for one in processes for each in descendants(one)}
        assert len(processes) == 4  # a frontend and a worker for each of three GPUs
        assert len(below) == 7  # and an instance for each worker
        with urllib.request.urlopen(f"http://{running.addresses.metrics}/readyz") as answer:
            assert answer.status == 200
        assert read_counter(running.addresses.metrics, "penstock_no_such_counter") == 0
    assert still_alive(below) == set()


def test_a_fleet_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    settings, plan = write_fleet(tmp_path)
    settings.plan.write_text("{}", encoding="utf-8")
    with LocalFleet(settings, plan) as fleet, pytest.raises(LaunchFailed, match="exit code 2"):
        fleet.start(START_LIMIT_S)
    assert fleet.process_ids == {}


def test_an_executor_that_does_not_exist_is_named(tmp_path: Path) -> None:
    settings, plan = write_fleet(tmp_path)
    with (
        LocalFleet(replace(settings, executor="quantum"), plan) as fleet,
        pytest.raises(LaunchFailed, match="quantum"),
    ):
        fleet.start(START_LIMIT_S)


def serving(tmp_path: Path) -> subprocess.Popen[str]:
    """Run `penstock serve` as a user does, until it says that it serves."""
    settings, _ = write_fleet(tmp_path)
    flags = ["--repository", str(settings.repository), "--executor", settings.executor]
    ports = ["--port", "0", "--metrics-port", "0", "--logs", str(settings.logs)]
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "serve", str(settings.plan), *flags, *ports],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("serving on ")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_serve_takes_everything_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as process:
        below = descendants(process.pid)
        assert len(below) == 7
        os.kill(process.pid, number)
        code = process.wait(PATIENCE_S)
        assert process.stderr is not None
        process.stderr.close()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert eventually(lambda: not still_alive(below))


def test_serve_ends_when_a_part_of_it_does(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        below = descendants(process.pid)
        frontend = min(below)
        os.kill(frontend, signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert "frontend ended with exit code -9" in process.stderr.read()
    assert eventually(lambda: not still_alive(below))

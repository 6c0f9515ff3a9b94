"""The promise of the run log: what a live fleet did, a dispatcher does again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from penstock.command import run
from penstock.verbs import VERBS
from tests.support.fleets import a_fleet


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        run("penstock", VERBS, [str(each) for each in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_log_of_a_live_fleet_replays_to_identical_effects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.jsonl"
    load = ("--model", "m", "--rate", "150", "--arrivals", "poisson", "--duration", "3", "--json")
    with a_fleet(tmp_path, slo_us=200_000) as running:
        assert call("bench", "--address", running.addresses.inference, *load) == 0
        # One of the two instances of the second stage goes, with what it computes.
        os.kill(running.fleet.process_ids["worker-slow-0"], signal.SIGKILL)
        assert call("bench", "--address", running.addresses.inference, *load) == 0
    capsys.readouterr()

    assert call("replay", log, "--json") == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["identical"]
    assert said["as_recorded"]
    assert said["open_requests"] == 0
    assert said["requests"] == said["overall"]["requests"]
    assert said["requests"] > 500
    assert said["batches"] > 100
    assert said["events"]["InstanceLost"] >= 1
    assert said["overall"]["answered"] > 0

    # A policy that waits otherwise is told apart at once, with the same log.
    assert call("replay", log, "--policy", "fixed:size=1", "--json") == 1
    other: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not other["as_recorded"]
    assert other["entries"] < said["entries"]

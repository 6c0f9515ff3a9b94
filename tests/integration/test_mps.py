"""Our MPS daemon as real processes, with a stand-in for the control program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.shares.base import ShareUnavailable
from penstock.shares.environment import LOGS, PIPES
from penstock.shares.mps import CONTROL, MpsDaemon, end_leftovers
from tests.support.fleet import alive
from tests.support.gpu_host import ROOT, GpuHost, gpu_host
from tests.support.nvml import UUID

pytestmark = pytest.mark.e2e

OWNER = """
import sys, time
from pathlib import Path
from penstock.shares.mps import MpsDaemon
daemon = MpsDaemon.start("GPU-1", Path(sys.argv[1]))
print(daemon.environment["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
time.sleep(60)
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuHost]:
    with gpu_host(tmp_path / "host", monkeypatch) as host:
        yield host


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "daemons"


def process_of(pipes: str) -> int:
    return int(Path(pipes, f"{CONTROL}.pid").read_text())


def test_a_daemon_starts_and_quits(host: GpuHost, base: Path) -> None:
    os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = "10"
    try:
        daemon = MpsDaemon.start(UUID, base)
    finally:
        del os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"]
    assert daemon.running
    environment = daemon.environment
    assert environment["CUDA_VISIBLE_DEVICES"] == UUID
    assert Path(environment[PIPES]).parent == Path(environment[LOGS]).parent
    assert environment[PIPES] != environment[LOGS]
    process = process_of(environment[PIPES])
    daemon.stop()
    assert not daemon.running
    assert not alive(process)
    assert list(base.iterdir()) == []
    assert host.said() == [f"start {UUID} ", "quit"]  # and our own limit is not the daemon's


def test_a_daemon_of_a_killed_owner_is_ended_and_no_other(host: GpuHost, base: Path) -> None:
    foreign = subprocess.Popen(["sleep", "60"], env={**os.environ, PIPES: str(base / "theirs")})
    mine = MpsDaemon.start(UUID, base)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(base)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        theirs = process_of(owner.stdout.readline().strip())
        assert end_leftovers(base) == 0
        assert alive(theirs)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert alive(theirs)
        (base / "something-else").mkdir()
        assert end_leftovers(base) == 1
        assert not alive(theirs)
        assert mine.running
        assert alive(foreign.pid)
        assert (base / "something-else").exists()
    finally:
        owner.kill()
        owner.communicate()
        mine.stop()
        foreign.kill()
        foreign.wait()


def test_a_number_that_is_somebody_elses_now_is_left_alone(host: GpuHost, base: Path) -> None:
    left = base / "mps-1-1-abc" / "pipe"
    left.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        (left / f"{CONTROL}.pid").write_text(f"{other.pid}\n")
        assert end_leftovers(base) == 1
        assert other.poll() is None
        assert host.said() == []  # and nobody was asked to quit
        assert list(base.iterdir()) == []
    finally:
        other.kill()
        other.wait()


def test_a_daemon_that_does_not_quit_is_killed(
    host: GpuHost, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.shares.mps._PATIENCE_S", 0.2)
    monkeypatch.setenv("FAKE_MPS_STUBBORN", "1")
    daemon = MpsDaemon.start(UUID, base)
    process = process_of(daemon.environment[PIPES])
    daemon.stop()
    assert not alive(process)


def test_what_does_not_start_says_why(
    host: GpuHost, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS_FAILS", "1")
    with pytest.raises(ShareUnavailable, match="-d: exit code 1: no device may be used"):
        MpsDaemon.start(UUID, base)
    assert list(base.iterdir()) == []


def test_without_the_program_nothing_is_made(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ShareUnavailable, match=f"{CONTROL} is not installed"):
        MpsDaemon.start(UUID, base)
    assert not base.exists()


def test_a_directory_that_others_may_use_is_refused(host: GpuHost, base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(ShareUnavailable, match="only we may use"):
        MpsDaemon.start(UUID, base)

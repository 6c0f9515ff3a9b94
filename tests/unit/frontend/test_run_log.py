"""The writer of the run log: all of it, soon, and never in the way of serving."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from frontend.run_log import RunLogWriter, header_of, run_log
from penstock.domain.errors import UnknownName
from penstock.formats.runlog import open_run_log
from penstock.formats.runlog_header import LogHeader
from penstock.scheduling.effects import WakeAt
from penstock.scheduling.events import WakeUp
from tests.support.frontends import some_settings


class Disk(io.StringIO):
    """A file that can be told to stall or to be full; what it took outlives it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = ""
        self.full = False
        self.free = threading.Event()
        self.free.set()

    def write(self, text: str) -> int:
        self.free.wait()
        if self.full:
            raise OSError(28, "No space left on device")
        self.taken += text
        return len(text)


def soon(holds: Callable[[], bool]) -> None:
    until_s = monotonic() + 10
    while not holds():
        assert monotonic() < until_s
        sleep(0.002)


def log_some(writer: RunLogWriter, first: int, count: int) -> None:
    for number in range(first, first + count):
        writer(number, WakeUp(), [WakeAt(number + 1)])


def read(text: str) -> list[int]:
    return [each.entry.now_us for each in open_run_log(text.splitlines(), "x").lines]


def test_the_header_is_there_at_once_and_entries_soon() -> None:
    disk = Disk()
    writer = RunLogWriter(disk, "head\n", pytest.fail, every_s=0.01)
    assert disk.taken == "head\n"
    log_some(writer, 0, 3)
    soon(lambda: disk.taken.count("\n") == 4)  # without closing
    log_some(writer, 3, 1)
    writer.close()
    assert read(disk.taken.removeprefix("head\n")) == [0, 1, 2, 3]
    assert disk.closed


def test_closing_writes_what_is_left() -> None:
    disk = Disk()
    writer = RunLogWriter(disk, "", pytest.fail, every_s=3600)
    log_some(writer, 0, 5_000)
    writer.close()
    assert read(disk.taken) == list(range(5_000))


def test_a_stalled_disk_does_not_hold_up_the_caller() -> None:
    disk = Disk()
    writer = RunLogWriter(disk, "", pytest.fail, every_s=0.001)
    disk.free.clear()
    log_some(writer, 0, 10)
    sleep(0.02)  # the thread is in the write
    before_s = monotonic()
    log_some(writer, 10, 10)
    assert monotonic() - before_s < 1
    disk.free.set()
    writer.close()
    assert read(disk.taken) == list(range(20))


def test_a_full_disk_ends_the_log_and_nothing_else() -> None:
    disk = Disk()
    told: list[str] = []
    writer = RunLogWriter(disk, "", told.append, every_s=0.001)
    log_some(writer, 0, 2)
    soon(lambda: disk.taken.count("\n") == 2)
    disk.full = True
    log_some(writer, 2, 2)
    soon(lambda: bool(told))
    disk.full = False
    log_some(writer, 4, 2)
    writer.close()
    assert told == ["No space left on device"]
    assert read(disk.taken) == [0, 1]  # a beginning, without a gap


def test_a_disk_that_cannot_keep_up_ends_the_log() -> None:
    disk = Disk()
    told: list[str] = []
    writer = RunLogWriter(disk, "", told.append, every_s=0.001, most_pending=50)
    disk.free.clear()
    log_some(writer, 0, 500)
    disk.free.set()
    soon(lambda: bool(told))
    log_some(writer, 500, 5)
    writer.close()
    assert told == ["the disk cannot keep up: 50 entries waited for it"]
    instants = read(disk.taken)
    assert instants == list(range(len(instants)))
    assert 50 <= len(instants) < 500


def test_the_header_tells_what_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    settings = some_settings(run_log=path, policy="fixed:size=3", queue_samples=7)
    with run_log(settings, pytest.fail) as log:
        assert log is not None
        assert path.read_text(encoding="utf-8").endswith("}\n")  # before anything happens
        log(5, WakeUp(), [])
    with path.open(encoding="utf-8") as lines:
        found = open_run_log(lines, "run.jsonl")
        assert found.header == header_of(settings)
        assert [each.entry.now_us for each in found.lines] == [5]
    assert isinstance(found.header, LogHeader)
    assert found.header.policy == "fixed:size=3,timeout_us=5000"
    assert found.header.limits.queue_samples == 7
    assert not found.header.simulated


def test_no_log_is_written_unasked() -> None:
    with run_log(some_settings(), pytest.fail) as log:
        assert log is None


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        run_log(some_settings(run_log=tmp_path / "no" / "run.jsonl"), pytest.fail),
    ):
        pass
    with (
        pytest.raises(UnknownName),
        run_log(some_settings(run_log=tmp_path / "run.jsonl", policy="no"), pytest.fail),
    ):
        pass
    assert not (tmp_path / "run.jsonl").exists()

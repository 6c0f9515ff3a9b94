"""The bench of stalls: what it sends, what it makes scarce, what it concludes."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bench import stalls
from bench.disturbances import LARGE_ROWS, Victim
from bench.footprint import Footprint, footprint, frugal_heaps
from bench.leftovers import left_of, leftovers
from bench.raw_calls import RawConnection, framed
from bench.scarcity import children_without_growth, short_files
from bench.stall_windows import CASES, MEMORY_FULL, Window
from penstock.domain.errors import InvalidSettings
from penstock.domain.outcomes import Summary
from penstock.domain.units import BYTES_PER_MIB as MIB
from penstock.rpc.http2.connection import Limits
from penstock.rpc.segment import Segment
from protos import inference_pb2 as pb
from tests.support.http2_ends import Recorder

KIB = 1 << 10
HELD = Footprint(
    resident_bytes=100 * MIB, open_files=40, threads=13, segments=6, segment_bytes=4 * MIB
)


def a_window(p99_ms: float | None, *, disturbed: bool, refused: int = 0, **more: Any) -> Window:
    steady = Summary(
        requests=100,
        answered=100 - refused,
        in_time=100 - refused,
        attainment=1.0,
        offered_rps=100.0,
        goodput_rps=100.0 - refused,
        p50_ms=p99_ms,
        p95_ms=p99_ms,
        p99_ms=p99_ms,
        refusals={},
    )
    given: dict[str, Any] = {"victim": {"OK": 20}, "told": {}, **more}
    return Window(case="unread", disturbed=disturbed, steady=steady, **given)


def windows(*disturbed: Window) -> list[Window]:
    return [*(a_window(each, disturbed=False) for each in (9.0, 10.0, 80.0)), *disturbed]


def judged(*disturbed: Window, held: Footprint = HELD) -> dict[str, bool]:
    left = leftovers([{"frontend": HELD}, {"frontend": HELD}, {"frontend": held}], 0)
    total = stalls.summary(windows(*disturbed), {"plenty": left}, "own")
    assert total["within_bars"] == all(total["bars_met"].values())
    bars: dict[str, bool] = total["bars_met"]
    return bars


# What it concludes


def test_medians_over_windows_are_compared() -> None:
    case = stalls.figures(
        windows(*(a_window(each, disturbed=True) for each in (15.0, 19.0, 900.0)))
    )
    assert (case["quiet_p99_ms"], case["disturbed_p99_ms"], case["p99_ratio"]) == (10.0, 19.0, 1.9)
    assert all(judged(a_window(19.0, disturbed=True)).values())


@pytest.mark.parametrize(
    ("window", "missed"),
    [
        (a_window(20.0, disturbed=True), "p99_ratio"),
        (a_window(19.0, disturbed=True, refused=1), "others_answered"),
        (a_window(19.0, disturbed=True, victim={"OK": 3, "DEADLINE_EXCEEDED": 1}), "none_lost"),
        (
            a_window(
                19.0,
                disturbed=True,
                told={MEMORY_FULL: {"statuses": {"message OK": 5}, "afterwards": "INTERNAL"}},
            ),
            "recovered",
        ),
    ],
)
def test_each_bar_can_be_missed(window: Window, missed: str) -> None:
    assert [name for name, met in judged(window).items() if not met] == [missed]


def test_a_window_without_answers_misses_the_bar() -> None:
    assert not judged(a_window(None, disturbed=True, refused=100))["p99_ratio"]


@pytest.mark.parametrize(
    "change",
    [
        {"open_files": 41},
        {"threads": 16},
        {"segments": 7},
        {"resident_bytes": 109 * MIB},
    ],
)
def test_what_is_left_is_a_leak(change: dict[str, int]) -> None:
    after = replace(HELD, **change)
    assert len(left_of(HELD, HELD, after)) == 1
    assert not judged(a_window(19.0, disturbed=True), held=after)["nothing_leaks"]
    assert not left_of(after, after, HELD)


def test_pools_may_have_a_thread_more() -> None:
    assert not left_of(HELD, HELD, replace(HELD, threads=15))


def test_pools_may_grow_in_the_first_half_only() -> None:
    larger = replace(HELD, resident_bytes=120 * MIB)
    largest = replace(HELD, resident_bytes=129 * MIB)
    grown = [{"a": each} for each in (HELD, HELD, larger, larger)]
    assert not leftovers([*grown, {"a": larger}], 0)["leaks"]
    assert leftovers([*grown, {"a": largest}], 0)["leaks"] == [
        "a: 9.0 MiB more memory than halfway"
    ]


def test_lost_processes_and_open_requests_are_told() -> None:
    told = leftovers([{"a": HELD}, {"a": HELD}, {"b": HELD}], 2)["leaks"]
    assert sorted(told) == ["2 requests are open", "a is not what it was", "b is not what it was"]


def test_cases_are_checked() -> None:
    assert stalls.cases_of("all,unread,all") == ["all", "unread"]
    assert stalls.cases_of(",".join(CASES)) == list(CASES)
    with pytest.raises(InvalidSettings, match="half-sent"):
        stalls.cases_of("unread,nonsense")


def test_only_cases_about_memory_get_little() -> None:
    assert stalls.by_memory(["all", "unread", "memory-full", "stopped"]) == {
        "plenty": ["unread", "stopped"],
        "scarce": ["all", "memory-full"],
    }
    assert stalls.by_memory(["unread"]) == {"plenty": ["unread"]}


# What it sends


@contextmanager
def a_server(limits: Limits) -> Iterator[tuple[str, Recorder]]:
    """Serve one connection with our own end of HTTP/2; nothing is answered."""
    end = Recorder(limits)
    end.granting = False
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as accepted:
                accepted.sendall(end.sent())
                while data := accepted.recv(1 << 16):
                    end.connection.receive(data)
                    accepted.sendall(end.sent())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", end
        thread.join(5)


@pytest.mark.parametrize(("window", "sent"), [(1 << 20, 50_002), (30_000, 30_000)])
def test_half_a_message_is_sent_and_no_more(window: int, sent: int) -> None:
    limits = Limits(stream_window_bytes=window)
    message = bytes(100_000)
    with a_server(limits) as (address, end):
        with RawConnection(address) as client:
            assert client.ask_half(message) == sent
            client.ask_half(message, amid_frame=True)
        assert len(framed(message)) // 2 == 50_002
    first, second = (end.got[number].body for number in sorted(end.got))
    assert (len(first), len(second) <= sent - 100) == (sent, True)
    assert not end.connection.ended


def test_requests_fit_the_model_they_are_for() -> None:
    victim = Victim(address="", model="m", row_bytes=1 * KIB, region="r")
    large = pb.ModelInferRequest.FromString(victim.large_request())
    assert len(large.raw_input_contents[0]) == LARGE_ROWS * KIB == victim.large_bytes
    named = pb.ModelInferRequest.FromString(victim.region_request(outputs=True))
    for parameters in (named.inputs[0].parameters, named.outputs[0].parameters):
        assert parameters["shared_memory_region"].string_param == "r"
        assert parameters["shared_memory_byte_size"].int64_param == victim.large_bytes
    assert not pb.ModelInferRequest.FromString(victim.region_request(outputs=False)).outputs


# What it makes scarce, and counts

GROW = """
from penstock.rpc.segment import Segment
segment = Segment(8 << 20)
segment.commit(1 << 20)
try:
    segment.commit((1 << 20) + 1)
except OSError as error:
    print(error.errno)
"""


def test_a_child_s_segments_end_at_the_limit_and_ours_do_not() -> None:
    with children_without_growth(1 << 20) as thread:
        run = thread.submit(
            subprocess.run, [sys.executable, "-c", GROW], capture_output=True, text=True, timeout=60
        )
        assert run.result().stdout.split() == [str(errno.ENOSPC)]
    segment = Segment(8 << 20)
    segment.commit(8 << 20)
    segment.close()


WRITE = """
import os, sys
file = os.memfd_create("x")
sys.stdin.readline()
print(os.pwrite(file, bytes(3000), 0), flush=True)
sys.stdin.readline()
print(os.pwrite(file, bytes(3000), 0), flush=True)
"""


def test_files_are_short_for_as_long_as_the_block_lasts() -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WRITE]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        written: list[str] = []
        with short_files(child.pid, 1000):
            child.stdin.write("\n")
            child.stdin.flush()
            written.append(child.stdout.readline().strip())
        child.stdin.write("\n")
        child.stdin.flush()
        written.append(child.stdout.readline().strip())
    assert written == ["1000", "3000"]


def test_segments_count_once_each_and_files_are_all_told() -> None:
    before = footprint(os.getpid())
    segment = Segment(4 << 20)
    segment.commit(1)
    more = footprint(os.getpid())
    assert more.open_files > before.open_files
    assert more.segment_bytes - before.segment_bytes == 1 << 20
    segment.close()
    assert footprint(os.getpid()).open_files == before.open_files
    assert before.threads >= 1


def test_the_heaps_of_children_only_are_frugal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MALLOC_MMAP_THRESHOLD_"
    monkeypatch.delenv(name, raising=False)
    with frugal_heaps():
        assert os.environ[name] == "131072"
    assert name not in os.environ
    monkeypatch.setenv(name, "5")
    with frugal_heaps():
        assert os.environ[name] == "131072"
    assert os.environ[name] == "5"

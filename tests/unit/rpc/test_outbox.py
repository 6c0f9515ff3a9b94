"""What waits for a link: cut into messages, put together again, reports ahead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvalidInput
from penstock.rpc.frames import LARGEST_FRAME_BYTES, Assembly, chunk_head
from penstock.rpc.outbox import Outbox

HEAD_BYTES = len(chunk_head(0))


def a_frame(size: int, mark: int = 0) -> bytes:
    """Begin as a frame does: with a header's length, which no chunk has."""
    return b"\0\0\0\0" + bytes([mark % 256] * size)


def messages(outbox: Outbox, largest: int) -> list[bytes]:
    sent = []
    while outbox:
        sent.append(b"".join(outbox.next(lambda size: min(size, largest))))
        outbox.done()
    return sent


def assembled(sent: list[bytes]) -> list[bytes]:
    assembly = Assembly()
    frames = (assembly.add(memoryview(each)) for each in sent)
    return [bytes(each) for each in frames if each is not None]


@given(st.lists(st.integers(0, 300), max_size=10), st.integers(HEAD_BYTES + 1, 100))
def test_frames_of_any_size_come_back_whole_and_in_order(sizes: list[int], largest: int) -> None:
    frames = [a_frame(size, mark) for mark, size in enumerate(sizes)]
    outbox = Outbox()
    for frame in frames:
        outbox.put(frame)
    assert outbox.held_bytes == sum(map(len, frames))
    sent = messages(outbox, largest)
    assert all(len(each) <= largest for each in sent)
    assert assembled(sent) == frames
    assert outbox.held_bytes == 0


def test_a_report_overtakes_the_rest_of_a_large_frame() -> None:
    outbox = Outbox()
    large, report = a_frame(1000, 1), a_frame(3, 2)
    outbox.put(large)
    first = b"".join(outbox.next(lambda size: min(size, 100)))
    outbox.put(report, urgent=True)
    assert not outbox.ready_for(urgent=True)
    outbox.done()
    assert assembled([first, *messages(outbox, 100)]) == [report, large]


def test_what_was_cleared_while_a_message_was_under_way_stays_cleared() -> None:
    outbox = Outbox()
    outbox.put(a_frame(1000))
    outbox.next(lambda _: 100)
    outbox.clear()
    outbox.done()
    assert not outbox
    assert outbox.held_bytes == 0


def test_a_frame_may_leave_at_once_only_if_it_overtakes_nothing() -> None:
    outbox = Outbox()
    assert outbox.ready_for(urgent=False)
    outbox.put(a_frame(1))
    assert not outbox.ready_for(urgent=False)
    assert outbox.ready_for(urgent=True)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([chunk_head(100)], "more than 12 bytes"),
        ([chunk_head(100)[:7]], "more than 12 bytes"),
        ([chunk_head(0) + b"x"], "at most 0 bytes"),
        ([chunk_head(2) + b"xyz"], "at most 2 bytes"),
        ([chunk_head(LARGEST_FRAME_BYTES + 1) + b"x"], "a frame of at most"),
        ([chunk_head((1 << 64) - 1) + b"x"], "a frame of at most"),
        ([chunk_head(5) + b"xyz", chunk_head(6) + b"abc"], "one of 5 bytes"),
        ([chunk_head(5) + b"xyz", chunk_head(5) + b"abc"], "at most 2 bytes"),
    ],
)
def test_chunks_that_lie_are_found_out(sent: list[bytes], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        assembled(sent)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_messages_make_frames_or_one_clear_error(sent: list[bytes]) -> None:
    try:
        frames = assembled(sent)
    except InvalidInput:
        return
    assert sum(map(len, frames)) <= sum(map(len, sent))


def test_a_lie_about_the_size_costs_no_memory() -> None:
    assembly = Assembly()
    assert assembly.add(memoryview(chunk_head(LARGEST_FRAME_BYTES) + b"x")) is None

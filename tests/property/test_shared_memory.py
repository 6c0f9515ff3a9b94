"""Both ends of a link through shared memory under any interleaving, and cut off at any point."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rpc.carriers import LinkKind
from penstock.rpc.frames import pack
from penstock.rpc.inlet import Inlet
from penstock.rpc.segment import Segment, open_segment
from penstock.rpc.shared_reader import SharedReader
from penstock.rpc.shared_sender import SharedCarrier
from protos.link_pb2 import FrameHeader
from tests.support.link_ends import a_result

CAPACITY = 1 << 18
# Send so many bytes, let both ends turn, or let go of the frame at a place among those held.
steps = st.lists(
    st.tuples(st.just("send"), st.sampled_from([0, 100, 17_000, 40_000, 100_000]))
    | st.tuples(st.just("turn"), st.just(0))
    | st.tuples(st.just("let go"), st.integers(0, 20)),
    max_size=60,
)


@dataclass
class Pair:
    """A carrier and its reader, on one loop."""

    carrier: SharedCarrier
    reader: SharedReader
    sent: list[bytes] = field(default_factory=list)
    held: list[tuple[int, memoryview]] = field(default_factory=list)
    came: int = 0

    def take(self, _: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        self.held.append((header.result.batch_id, views[0]))
        self.came += 1

    def send(self, size: int) -> None:
        """Send a frame unless there is no room."""
        number = len(self.sent)
        data = bytes([number % 251]) * size
        if self.carrier.send_now([pack(*a_result(number, data))]):
            self.sent.append(data)

    def check_held(self) -> None:
        for number, view in self.held:
            assert bytes(view) == self.sent[number]


@contextmanager
def a_pair() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    far.setblocking(False)
    segment = Segment(CAPACITY)
    reader = SharedReader(far, open_segment(os.dup(segment.file), CAPACITY))
    pair = Pair(SharedCarrier(near, segment, asyncio.Event()), reader)
    reader.start(Inlet("it", LinkKind.SHARED_MEMORY, pair.take))
    yield pair
    pair.carrier.close()
    reader.close()


async def turn() -> None:
    """Let what is ready happen."""
    for _ in range(4):
        await asyncio.sleep(0)


async def play(pair: Pair, taken: Sequence[tuple[str, int]]) -> None:
    for step, number in taken:
        if step == "send":
            pair.send(number)
        elif step == "turn":
            await turn()
        elif pair.held:
            del pair.held[number % len(pair.held)]
        pair.check_held()


@settings(deadline=None)
@given(steps)
def test_frames_come_in_order_and_stay_whole_while_they_are_held(
    taken: list[tuple[str, int]],
) -> None:
    async def run() -> None:
        with a_pair() as pair:
            await play(pair, taken)
            while pair.came < len(pair.sent):
                await turn()
            pair.check_held()
            assert not pair.carrier.ended.done()
            pair.held.clear()
            while pair.carrier.held_bytes:
                await turn()

    asyncio.run(asyncio.wait_for(run(), 10))


@settings(deadline=None)
@given(steps, st.booleans())
def test_an_end_cut_off_at_any_point_harms_nothing_that_was_sent(
    taken: list[tuple[str, int]], sender_goes: bool
) -> None:
    async def run() -> None:
        with a_pair() as pair:
            await play(pair, taken)
            if sender_goes:
                pair.carrier.close()
                await pair.reader.ended
                assert pair.came == len(pair.sent)
            else:
                pair.reader.close()
                assert pair.came == len(pair.sent)
                await pair.carrier.ended
                pair.send(100)
                assert pair.came == len(pair.sent)
            pair.check_held()

    asyncio.run(asyncio.wait_for(run(), 10))

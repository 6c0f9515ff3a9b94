"""Links between real processes that are killed, stopped and slow."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from penstock.rpc.links import LinkFull, LinkKind, LinkSender
from tests.support.link_ends import Received, a_receiver, a_result
from tests.support.link_process import checked, is_whole
from tests.support.link_processes import a_process, line_of, traces

ENDS = "tests.support.link_process"


def check_whole(received: Received) -> None:
    assert received.numbers == [*range(1, len(received.numbers) + 1)]
    for number, data in zip(received.numbers, received.data, strict=True):
        assert is_whole(data, number)


def send_until_full(link: LinkSender) -> int:
    """Return how many frames were sent."""
    for number in range(1, 1000):
        try:
            link.send_nowait(*a_result(number, checked(number)))
        except LinkFull:
            return number - 1
    raise AssertionError("the link takes everything")


@pytest.mark.parametrize("seed", range(4))
async def test_a_sender_killed_at_any_point_is_a_loss_and_leaves_nothing(seed: int) -> None:
    before = traces()
    async with a_receiver() as received, a_process(ENDS, "send", received.address) as sender:
        assert await line_of(sender) == str(LinkKind.SHARED_MEMORY)
        await received.frames(1)
        await asyncio.sleep(random.Random(seed).uniform(0, 0.1))
        sender.kill()
        await received.until(lambda: received.lost == ["sender"])
        check_whole(received)
    assert traces() == before


async def test_a_killed_receiver_is_a_loss_and_leaves_nothing() -> None:
    before = traces()
    async with a_process(ENDS, "receive") as receiver:
        link = LinkSender(await line_of(receiver), "me")
        await link.opened()
        assert link.kind is LinkKind.SHARED_MEMORY
        for number in range(1, 30):
            await link.send(*a_result(number, checked(number)))
        assert await line_of(receiver) == "1"
        receiver.kill()
        assert await asyncio.wait_for(link.closed, 5)
        await link.close()
    assert traces() == before


async def test_both_ends_killed_leave_nothing() -> None:
    before = traces()
    async with a_process(ENDS, "receive") as receiver:
        address = await line_of(receiver)
        async with a_process(ENDS, "send", address) as sender:
            assert await line_of(sender) == str(LinkKind.SHARED_MEMORY)
            assert [await line_of(receiver) for _ in range(5)] == ["1", "2", "3", "4", "5"]
            assert traces(sender.pid)
            sender.kill()
            receiver.kill()
    assert traces() == before


async def test_a_stopped_receiver_bounds_its_sender_and_loses_nothing() -> None:
    limit, size = 16 << 20, 1 << 20
    async with a_process(ENDS, "receive") as receiver:
        link = LinkSender(await line_of(receiver), "me", limit_bytes=limit, shared_bytes=8 << 20)
        await link.opened()
        receiver.send_signal(signal.SIGSTOP)
        sent = send_until_full(link)
        assert link.held_bytes < limit + 3 * size
        receiver.send_signal(signal.SIGCONT)
        for number in range(1, sent + 1):
            assert await line_of(receiver) == str(number)
        await link.close()
        assert await line_of(receiver) == "lost me"


async def test_a_sender_that_is_stopped_and_goes_on_loses_nothing() -> None:
    async with a_receiver() as received, a_process(ENDS, "send", received.address) as sender:
        await received.frames(5)
        sender.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        before = len(received.numbers)
        sender.send_signal(signal.SIGCONT)
        await received.frames(before + 20)
        assert received.lost == []
        sender.kill()
        await received.until(lambda: received.lost == ["sender"])
        check_whole(received)

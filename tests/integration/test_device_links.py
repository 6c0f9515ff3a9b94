"""Links through device memory between real processes that are killed; the device is played."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from penstock.rpc.links import LinkKind, LinkSender
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.device_ends import a_device_receiver, on_device, send_data, source, until
from tests.support.link_process import checked, is_whole
from tests.support.link_processes import a_process, line_of, traces

ENDS = "tests.support.device_process"


async def gone(fake: FakeCudaMemory) -> None:
    await until(lambda: not fake.owned and not fake.opened)
    assert fake.faults == []


async def send_until_full(link: LinkSender) -> int:
    """Return how many frames were sent."""
    for number in range(1, 1000):
        try:
            async with asyncio.timeout(0.2):
                await send_data(link, number, checked(number))
        except TimeoutError:
            return number - 1
    raise AssertionError("the link takes everything")


async def test_many_tensors_cross_between_processes_whole_and_in_order() -> None:
    fake, count = FakeCudaMemory(), 300
    async with a_process(ENDS, "receive") as receiver:
        link = LinkSender(await line_of(receiver), "me", device=source(fake))
        await link.opened()
        assert link.kind is LinkKind.CUDA_IPC
        for number in range(1, count + 1):
            await send_data(link, number, checked(number))
            await asyncio.sleep(0)
        lines = [(await line_of(receiver)).split() for _ in range(count)]
        assert [int(number) for number, _ in lines] == [*range(1, count + 1)]
        assert lines[0][1] == "device"  # of the others as many as find room
        await link.close()
        assert await line_of(receiver) == "lost me"
        await gone(fake)
        assert receiver.stdin is not None
        receiver.stdin.close()
        assert await line_of(receiver) == "faults 0"


@pytest.mark.parametrize("seed", range(3))
async def test_a_sender_killed_at_any_point_is_one_loss_and_leaves_nothing(seed: int) -> None:
    before, fake = traces(), FakeCudaMemory()
    async with (
        a_device_receiver(fake) as received,
        a_process(ENDS, "send", received.address) as sender,
    ):
        assert await line_of(sender) == str(LinkKind.CUDA_IPC)
        await received.frames(1)
        await asyncio.sleep(random.Random(seed).uniform(0, 0.1))
        sender.kill()
        await received.until(lambda: received.lost == ["sender"])
        assert received.numbers == [*range(1, len(received.numbers) + 1)]
        for number, data in zip(received.numbers, received.data, strict=True):
            assert is_whole(data, number)
        assert "device" in received.ways
        await gone(fake)
    assert traces() == before


async def test_what_a_killed_sender_left_is_not_read_any_more() -> None:
    fake = FakeCudaMemory()
    async with (
        a_device_receiver(fake, keep=True) as received,
        a_process(ENDS, "send", received.address) as sender,
    ):
        await received.until(lambda: bool(received.places))
        sender.kill()
        await received.until(lambda: received.lost == ["sender"])
        await asyncio.sleep(0.02)
        with pytest.raises(Exception, match="the sender has died"):
            received.copied(received.places[0])
        assert fake.opened  # mapped, as long as it is looked at
        received.places.clear()
        await gone(fake)


async def test_a_killed_receiver_gives_the_memory_back() -> None:
    before, fake = traces(), FakeCudaMemory()
    async with a_process(ENDS, "hold") as receiver:
        link = LinkSender(await line_of(receiver), "me", device=source(fake))
        await link.opened()
        for number in range(1, 20):
            await send_data(link, number, checked(number))
        assert await line_of(receiver) == "1 device"
        await link.close()
        await asyncio.sleep(0.05)
        assert fake.owned  # the receiver still looks at it
        receiver.kill()
        await gone(fake)
    assert traces() == before


async def test_a_receiver_killed_under_a_link_is_a_loss() -> None:
    before, fake = traces(), FakeCudaMemory()
    async with a_process(ENDS, "receive") as receiver:
        link = LinkSender(await line_of(receiver), "me", device=source(fake))
        await link.opened()
        await send_data(link, 1, checked(1))
        assert await line_of(receiver) == "1 device"
        receiver.kill()
        assert await asyncio.wait_for(link.closed, 5)
        assert link.pool is None
        await gone(fake)
    assert traces() == before


async def test_both_ends_killed_leave_nothing() -> None:
    before = traces()
    async with a_process(ENDS, "receive") as receiver:
        address = await line_of(receiver)
        async with a_process(ENDS, "send", address) as sender:
            assert await line_of(sender) == str(LinkKind.CUDA_IPC)
            assert (await line_of(receiver)).startswith("1 ")
            sender.kill()
            receiver.kill()
    assert traces() == before


async def test_a_stopped_receiver_bounds_its_sender_and_loses_nothing() -> None:
    limit, fake = 16 << 20, FakeCudaMemory()
    async with a_process(ENDS, "receive") as receiver:
        link = LinkSender(await line_of(receiver), "me", device=source(fake), limit_bytes=limit)
        await link.opened()
        receiver.send_signal(signal.SIGSTOP)
        sent = await send_until_full(link)
        assert on_device(link, "x", bytes(1 << 20)) is None
        assert link.held_bytes < limit + (4 << 20)
        receiver.send_signal(signal.SIGCONT)
        for number in range(1, sent + 1):
            assert (await line_of(receiver)).split()[0] == str(number)
        await link.close()
        await gone(fake)

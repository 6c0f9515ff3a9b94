"""Links through device memory, both ends on devices that are not there: what goes which way."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from penstock.cuda.calls import BINDINGS
from penstock.cuda.memory import BLOCK_BYTES, DeviceMemory, DeviceRefused
from penstock.domain.errors import InvalidInput
from penstock.rpc.carriers import LinkKind, LinkLost
from penstock.rpc.device_frames import announce_all, withdraw
from penstock.rpc.device_pool import DevicePool
from penstock.rpc.links import LinkFull, LinkSender
from protos.link_pb2 import BatchResult, DeviceRegion, FrameHeader, TensorHeader
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.device_ends import (
    POOL_BYTES,
    DeviceReceived,
    a_device_receiver,
    in_host,
    on_device,
    send,
    send_data,
    source,
    until,
)
from tests.support.link_ends import a_receiver, a_report, a_result

SIZES = (1, 1000, 100_000, 1 << 20)
HALF = POOL_BYTES // 2 // 256 * 256


@pytest.fixture
def ours() -> Iterator[FakeCudaMemory]:
    yield from a_device()


@pytest.fixture
def theirs() -> Iterator[FakeCudaMemory]:
    yield from a_device()


def a_device() -> Iterator[FakeCudaMemory]:
    fake = FakeCudaMemory()
    yield fake
    assert fake.faults == []
    assert (fake.owned, fake.opened) == ({}, {}), "something is left behind"


@asynccontextmanager
async def a_link(
    ours: FakeCudaMemory,
    theirs: FakeCudaMemory,
    *,
    keep: bool = False,
    stream: int = 0,
    limit_bytes: int = 256 << 20,
) -> AsyncIterator[tuple[LinkSender, DeviceReceived]]:
    async with a_device_receiver(theirs, keep=keep, stream=stream) as received:
        link = LinkSender(received.address, "me", device=source(ours), limit_bytes=limit_bytes)
        await link.opened()
        assert link.kind is LinkKind.CUDA_IPC
        assert received.receiver.kinds() == {"me": LinkKind.CUDA_IPC}
        assert len(ours.owned) == len(theirs.opened) == 1
        yield link, received
        await link.close()
        await received.until(lambda: "me" in received.lost)
        received.places.clear()
        await until(lambda: not ours.owned and not theirs.opened)


async def send_once_there_is_room(link: LinkSender, number: int, data: bytes) -> None:
    for pause_s in itertools.repeat(0.0005):
        tensor = on_device(link, "x", data)
        if tensor is not None:
            await send(link, number, tensor)
            return
        await asyncio.sleep(pause_s)


async def test_tensors_stay_on_the_device_and_arrive_whole_and_in_order(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    sent = [os.urandom(random.Random(seed).choice(SIZES)) for seed in range(200)]
    async with a_link(ours, theirs) as (link, received):
        for number, data in enumerate(sent):
            await send_once_there_is_room(link, number, data)
        await received.frames(len(sent))
        assert received.numbers == [*range(len(sent))]
        assert received.data == sent
        assert set(received.ways) == {"device"}
        await until(lambda: link.held_bytes == 0)


async def test_host_and_device_mix_in_one_frame_and_among_frames(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    large, small = os.urandom(300_000), os.urandom(30)
    async with a_link(ours, theirs) as (link, received):
        kept = [on_device(link, "a", small), on_device(link, "b", large)]
        assert all(kept)
        await send(link, 0, kept[1] or in_host("b", b""), in_host("c", large), in_host("d", b""))
        await link.send(*a_result(1, large))
        link.send_nowait(a_report(2))
        await send(link, 3, in_host("c", small), kept[0] or in_host("a", b""))
        kept.clear()
        await received.frames(4)
        assert received.numbers == [0, 1, 2, 3]
        assert received.ways == ["device", "host", "host", "host", "host", "device"]
        assert received.data == [large, large, b"", large, small, small]


async def test_a_slow_receiver_has_its_slots_and_the_rest_goes_through_the_host(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    size, count = HALF, 6
    async with a_link(ours, theirs, keep=True) as (link, received):
        for number in range(count):
            await send_data(link, number, bytes([number]) * size)
        await received.frames(count)
        assert received.ways == ["device"] * 2 + ["host"] * (count - 2)
        first = received.copied(received.places.pop(0))
        assert first == bytes(size)
        await until(lambda: on_device(link, "x", bytes(size)) is not None)
        assert received.copied(received.places[0]) == b"\1" * size


async def test_a_receiver_that_lets_nothing_go_bounds_its_sender(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    size = HALF
    async with a_link(ours, theirs, keep=True, limit_bytes=4 * size) as (link, received):
        for number in range(2):
            await send_data(link, number, bytes(size))
        for _ in range(2):
            link.send_nowait(*a_result(1, bytes(size)))
        received.views.clear()
        tensor = on_device(link, "x", b"small")
        assert tensor is not None
        assert link.held_bytes >= 4 * size
        result = BatchResult()
        announce_all(result.tensors, [tensor], link.pool)
        with pytest.raises(LinkFull):
            link.send_nowait(FrameHeader(result=result))
        held = link.held_bytes
        withdraw(result.tensors, link.pool)
        assert link.held_bytes < held
        del tensor


async def test_nothing_is_overwritten_before_the_device_has_read_it(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    """The receiver lets go at once, its stream is slow: no view is left, but reads are."""
    theirs.delay_s = 0.01
    size, count = HALF, 6
    async with a_link(ours, theirs, stream=7) as (link, received):
        for number in range(count):
            data = bytes([number]) * size
            await send_once_there_is_room(link, number, data)
        await received.frames(count)
        await until(lambda: link.held_bytes == 0)
        assert [set(each) for each in received.copies] == [{number} for number in range(count)]


async def test_a_slot_that_is_not_sent_is_free_again(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    async with a_link(ours, theirs) as (link, _):
        for _ in range(50):
            slot = on_device(link, "x", bytes(POOL_BYTES))
            assert slot is not None
            assert on_device(link, "y", b"y") is None
            del slot
        assert link.held_bytes == 0


async def test_slots_go_with_their_link(ours: FakeCudaMemory, theirs: FakeCudaMemory) -> None:
    async with a_link(ours, theirs) as (older, received):
        tensor = on_device(older, "x", b"x")
        await older.close()
        await until(lambda: not ours.owned)
        assert tensor is not None
        tensor.slot.write(0, 0)  # as by an executor that has not heard of the loss
        newer = LinkSender(received.address, "me", device=source(ours))
        await newer.opened()
        with pytest.raises(LinkLost, match="device memory of a link that is lost"):
            await send(newer, 1, tensor)
        assert older.pool is None
        await newer.close()
        del tensor


async def test_memory_stays_until_the_receiver_has_read_what_it_was_sent(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    theirs.delay_s = 0.02
    async with a_link(ours, theirs, keep=True, stream=7) as (link, received):
        await send_data(link, 1, b"last words")
        await received.frames(1)
        await link.close()
        await received.until(lambda: received.lost == ["me"])
        await asyncio.sleep(0.02)
        assert ours.owned  # it is still looked at
        received.copied(received.places.pop())
        await until(lambda: not ours.owned)
        assert received.copies[0].tobytes() == b"last words"


async def test_a_sender_that_died_takes_its_memory_with_it(
    ours: FakeCudaMemory, theirs: FakeCudaMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.rpc.device_sender.BYE", b"")  # it could not say that it goes
    async with a_link(ours, theirs, keep=True) as (link, received):
        await send_data(link, 1, b"x")
        await received.frames(1)
        await link.close()
        await received.until(lambda: received.lost == ["me"])
        await asyncio.sleep(0.02)
        with pytest.raises(LinkLost, match="the sender has died"):
            received.copied(received.places[0])


async def test_a_part_of_a_tensor_is_read_alone(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    async with a_link(ours, theirs, keep=True) as (link, received):
        await send_data(link, 1, b"0123456789")
        await received.frames(1)
        place = received.places.pop()
        part = place.part(2, 7).part(1, 3)
        del place
        assert received.copied(part) == b"34"
        assert link.held_bytes  # as long as a part is looked at
        del part
        await until(lambda: link.held_bytes == 0)


# What stands in the way: each time the link is one through shared memory, and says why


async def kind_without(
    ours: FakeCudaMemory | None, theirs: FakeCudaMemory | None
) -> LinkKind | None:
    async with a_device_receiver(theirs) as received:
        link = LinkSender(received.address, "me", device=source(ours))
        await link.opened()
        await send_data(link, 1, bytes(100_000))
        await received.frames(1)
        assert received.ways == ["host"]
        kind = link.kind
        await link.close()
        if ours is not None:
            await until(lambda: not ours.owned)
        if theirs is not None:
            await until(lambda: not theirs.opened)
    return kind


async def test_a_receiver_without_a_device(
    ours: FakeCudaMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await kind_without(ours, None) is LinkKind.SHARED_MEMORY
    assert "link from me copies through the host: we use no device" in caplog.text


async def test_a_sender_without_a_device(theirs: FakeCudaMemory) -> None:
    assert await kind_without(None, theirs) is LinkKind.SHARED_MEMORY


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cuIpcOpenMemHandle", "no CUDA IPC from the same device: cuIpcOpenMemHandle: CUDA_ERROR"),
        ("cuMemcpyDtoH", "no CUDA IPC from the same device: cuMemcpyDtoH: CUDA_ERROR_INVALID"),
    ],
)
async def test_a_handle_that_is_refused(
    call: str,
    words: str,
    ours: FakeCudaMemory,
    theirs: FakeCudaMemory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    theirs.fails.add(call)
    assert await kind_without(ours, theirs) is LinkKind.SHARED_MEMORY
    assert words in caplog.text
    theirs.close()


async def test_memory_that_is_not_what_was_offered(
    ours: FakeCudaMemory,
    theirs: FakeCudaMemory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(DeviceMemory, "put", lambda *_: None)
    assert await kind_without(ours, theirs) is LinkKind.SHARED_MEMORY
    assert "what was mapped is not what was offered" in caplog.text


async def test_a_device_that_ours_cannot_reach(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kind = await kind_without(FakeCudaMemory(device=1), FakeCudaMemory(device=2))
    assert kind is LinkKind.SHARED_MEMORY
    assert "no CUDA IPC from GPU-00000000-0000-0000-0000-000000000001, ours is GPU-" in caplog.text
    assert "CUDA_ERROR_MAP_FAILED" in caplog.text


async def test_a_peer_device_is_reached() -> None:
    ours, theirs = FakeCudaMemory(device=1), FakeCudaMemory(device=2, peers=frozenset({1}))
    async with a_link(ours, theirs) as (link, received):
        await send_data(link, 1, b"x")
        await received.frames(1)
        assert (received.ways, received.data) == (["device"], [b"x"])


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuIpcGetMemHandle", "cuMemcpyHtoD"])
async def test_no_memory_to_offer(
    call: str, theirs: FakeCudaMemory, caplog: pytest.LogCaptureFixture
) -> None:
    ours = FakeCudaMemory(limit=BLOCK_BYTES - 1) if call == "cuMemAlloc" else FakeCudaMemory()
    if call != "cuMemAlloc":
        ours.fails.add(call)
    assert await kind_without(ours, theirs) is LinkKind.SHARED_MEMORY
    assert "copies through the host: no device memory: cu" in caplog.text
    assert ours.owned == {}


async def test_the_same_process_cannot_open_what_it_exports(
    ours: FakeCudaMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await kind_without(ours, ours) is LinkKind.SHARED_MEMORY
    assert "CUDA_ERROR_INVALID_CONTEXT" in caplog.text


async def test_without_shared_memory_there_is_no_device_memory(ours: FakeCudaMemory) -> None:
    async with a_receiver(shared_memory=False) as received:
        link = LinkSender(received.address, "me", device=source(ours))
        await link.opened()
        assert (link.kind, link.pool) == (LinkKind.STREAM, None)
        await link.close()
    await until(lambda: not ours.owned)


async def test_other_links_go_on_while_memory_is_mapped(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    theirs.open_s = 0.3
    async with a_device_receiver(theirs) as received:
        slow = LinkSender(received.address, "slow", device=source(ours))
        other = LinkSender(received.address, "other")
        began = time.monotonic()
        await other.send(*a_result(1, b"x"))
        await received.frames(1)
        assert time.monotonic() - began < 0.3
        await slow.opened()
        assert slow.kind is LinkKind.CUDA_IPC
        await other.close()
        await slow.close()
        await until(lambda: not ours.owned and not theirs.opened)


async def test_a_link_that_is_given_up_while_memory_is_mapped_leaves_nothing(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    theirs.open_s = 0.3
    async with a_device_receiver(theirs) as received:
        link = LinkSender(received.address, "me", device=source(ours))
        await asyncio.sleep(0.1)
        await link.close()
        await until(lambda: not ours.owned and not theirs.opened)


# Ends that lie


def lie(region: DeviceRegion, size: int = 10) -> FrameHeader:
    tensor = TensorHeader(name="x", datatype="UINT8", shape=(size,), byte_size=size, device=region)
    return FrameHeader(result=BatchResult(batch_id=1, tensors=[tensor]))


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (DeviceRegion(generation=0, start=256), "a generation after 0, found generation 0"),
        (DeviceRegion(generation=1 << 63, start=256), "a generation after 0"),
        (DeviceRegion(generation=1, start=0), "found 10 bytes at 0"),
        (DeviceRegion(generation=1, start=BLOCK_BYTES - 9), "some bytes within"),
        (DeviceRegion(generation=1, start=(1 << 64) - 1), "some bytes within"),
    ],
)
async def test_a_place_that_is_none_cuts_the_link_off(
    region: DeviceRegion, words: str, ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    async with a_link(ours, theirs) as (link, received):
        link.send_nowait(lie(region))
        assert words in await asyncio.wait_for(link.closed, 5)
        await received.until(lambda: received.lost == ["me"])
        assert received.numbers == []


async def test_a_generation_is_never_used_again(
    ours: FakeCudaMemory, theirs: FakeCudaMemory
) -> None:
    async with a_link(ours, theirs) as (link, received):
        await send_data(link, 1, b"x")
        link.send_nowait(lie(DeviceRegion(generation=1, start=256)))
        assert "a generation after 1" in await asyncio.wait_for(link.closed, 5)
        assert received.numbers == [1]


async def test_other_links_carry_no_tensors_on_devices() -> None:
    async with a_receiver() as received:
        link = LinkSender(received.address, "me")
        link.send_nowait(lie(DeviceRegion(generation=1, start=256)))
        assert "expected tensors with their bytes" in await asyncio.wait_for(link.closed, 5)
        assert received.numbers == []


async def test_what_is_given_back_must_be_out(
    ours: FakeCudaMemory, theirs: FakeCudaMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.rpc.device_reader.on_device", lambda number: number + 7 | 1 << 63)
    async with a_link(ours, theirs) as (link, _):
        await send_data(link, 1, b"x")
        words = await asyncio.wait_for(link.closed, 5)
        assert "a region in use, found generation 8" in words


# The pool and the driver


def a_pool(fake: FakeCudaMemory, size: int = POOL_BYTES) -> DevicePool:
    return DevicePool(DeviceMemory(bindings=fake), size)


def test_memory_is_exported_by_whole_blocks(ours: FakeCudaMemory) -> None:
    pool = a_pool(ours, 5)
    assert pool.offer.size == BLOCK_BYTES
    assert pool.device == "GPU-00000000-0000-0000-0000-000000000001"
    pool.close()


def test_numbers_grow_in_the_order_of_sending_not_of_taking(ours: FakeCudaMemory) -> None:
    pool = a_pool(ours)
    early, late = pool.take(10), pool.take(10)
    assert early is not None
    assert late is not None
    assert [pool.send(late).generation, pool.send(early).generation] == [1, 2]
    assert not pool.owns(late)
    with pytest.raises(TypeError):
        pool.send(late)
    for number in (2, 1):
        pool.give_back(number)
    with pytest.raises(InvalidInput, match="a region in use, found generation 1"):
        pool.give_back(1)
    assert pool.held_bytes == 0
    pool.retire()
    assert pool.take(1) is None
    pool.close()


def test_memory_that_is_being_written_stays(ours: FakeCudaMemory) -> None:
    pool, data = a_pool(ours), bytes(1000)
    slot = pool.take(1000)
    assert slot is not None
    ours.delay_s = 0.02
    slot.write(np.frombuffer(data, np.uint8).ctypes.data, 7)
    pool.close()
    assert ours.owned == {}


def test_nothing_takes_no_slot(ours: FakeCudaMemory) -> None:
    pool = a_pool(ours)
    assert pool.take(0) is None
    assert pool.take(1 << 40) is None
    pool.close()


def test_no_bindings_means_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, BINDINGS, None)
    with pytest.raises(DeviceRefused, match="cuda-bindings is not installed"):
        DeviceMemory()


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"])
def test_no_device_is_told_in_words(call: str) -> None:
    with pytest.raises(DeviceRefused, match=f"{call}: CUDA_ERROR_INVALID_VALUE"):
        DeviceMemory(bindings=FakeCudaMemory(fails={call}))

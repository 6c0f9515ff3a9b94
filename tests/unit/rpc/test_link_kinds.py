"""Links of every kind behave alike; the kind is chosen by what works."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from penstock.cuda.memory import DeviceMemory
from penstock.rpc import shared_reader, shared_sender
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import LinkFull, LinkKind, LinkLost, LinkSender, Neighbours
from penstock.rpc.local_socket import listen
from protos.link_pb2 import BatchResult, FrameHeader, TensorHeader
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.device_ends import source
from tests.support.link_ends import Received, a_receiver, a_report, a_result

KINDS = list(LinkKind)
SIZES = (0, 1, 1000, 16 << 10, 600 << 10, 4 << 20, 9 << 20)


def a_door() -> DeviceDoor:
    """Return the end of a link whose frames all come through the host."""
    return DeviceDoor(DeviceMemory(bindings=FakeCudaMemory()), lambda *_: None)


@asynccontextmanager
async def a_link(
    kind: LinkKind, *, keep: bool = False, limit_bytes: int = 256 << 20, shared_bytes: int = 8 << 20
) -> AsyncIterator[tuple[LinkSender, Received]]:
    neighbours = Neighbours() if kind is LinkKind.SAME_PROCESS else None
    use_memory = kind in {LinkKind.SHARED_MEMORY, LinkKind.CUDA_IPC}
    on_device = kind is LinkKind.CUDA_IPC
    async with a_receiver(
        keep=keep,
        shared_memory=use_memory,
        neighbours=neighbours,
        device=a_door() if on_device else None,
    ) as received:
        link = LinkSender(
            received.address,
            "me",
            limit_bytes=limit_bytes,
            shared_bytes=shared_bytes,
            neighbours=neighbours,
            device=source(FakeCudaMemory()) if on_device else None,
        )
        await link.opened()
        assert link.kind is kind
        assert received.receiver.kinds() == {"me": kind}
        yield link, received
        await link.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_frames_of_any_size_arrive_whole_and_in_order(kind: LinkKind) -> None:
    sent = [os.urandom(size) for size in SIZES * 2]
    async with a_link(kind) as (link, received):
        for number, data in enumerate(sent):
            await link.send(*a_result(number, data))
        await received.frames(len(sent))
        assert received.numbers == [*range(len(sent))]
        assert received.data == sent


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_looked_at_is_never_overwritten(kind: LinkKind) -> None:
    sent = [bytes([number]) * (300 << 10) for number in range(60)]
    async with a_link(kind, keep=True, shared_bytes=4 << 20) as (link, received):
        for number, data in enumerate(sent):
            link.send_nowait(*a_result(number, data))
        seen = 0
        while seen < len(sent):
            await received.until(lambda: bool(received.views))
            view = received.views.pop(0)
            await asyncio.sleep(0.001)
            assert bytes(view) == sent[seen]
            del view
            seen += 1


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sender_may_use_its_buffer_again(kind: LinkKind) -> None:
    buffer = bytearray(b"a" * 100_000)
    async with a_link(kind) as (link, received):
        header, _ = a_result(1, bytes(buffer))
        for letter in b"abc":
            buffer[:] = bytes([letter]) * len(buffer)
            link.send_nowait(header, [memoryview(buffer)])
        buffer[:] = bytes(len(buffer))
        await received.frames(3)
        assert [set(each) for each in received.data] == [{97}, {98}, {99}]


@pytest.mark.parametrize("kind", [each for each in KINDS if each is not LinkKind.STREAM])
async def test_a_receiver_that_lets_nothing_go_slows_its_sender(kind: LinkKind) -> None:
    size = 1 << 20
    async with a_link(kind, keep=True, limit_bytes=8 * size) as (link, received):
        sent = 0
        while link.held_bytes < 8 * size:
            link.send_nowait(*a_result(sent, bytes(size)))
            sent += 1
        with pytest.raises(LinkFull, match="bytes wait for the peer"):
            link.send_nowait(a_report(1))
        assert link.held_bytes <= 9 * size + 4096
        waiting = asyncio.create_task(link.send(*a_result(100, b"last")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        while len(received.numbers) <= sent:
            received.views.clear()
            await asyncio.sleep(0.005)
        await waiting


async def test_a_stream_is_read_no_faster_than_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.rpc.inlet.Inlet.__init__.__defaults__", (2 << 20,))
    async with a_link(LinkKind.STREAM, keep=True, limit_bytes=4 << 20) as (link, received):
        sending = asyncio.create_task(send_many(link, 40))
        await asyncio.sleep(0.3)
        assert len(received.views) <= 3
        assert not sending.done()
        while not sending.done() or len(received.numbers) < 40:
            received.views.clear()
            await asyncio.sleep(0.005)


async def send_many(link: LinkSender, count: int) -> None:
    for number in range(count):
        await link.send(*a_result(number, bytes(1 << 20)))


@pytest.mark.parametrize("kind", KINDS)
async def test_reports_overtake_what_waits(kind: LinkKind) -> None:
    async with a_receiver(shared_memory=kind is LinkKind.SHARED_MEMORY) as received:
        link = LinkSender(received.address, "me")
        link.send_nowait(*a_result(1, bytes(40 << 20)))
        link.send_nowait(a_report(2))
        await received.frames(2)
        assert received.numbers == [2, 1]
        await link.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_both_ends_learn_of_the_end(kind: LinkKind) -> None:
    async with a_link(kind) as (link, received):
        link.send_nowait(*a_result(1, bytes(100_000)))
        await received.frames(1)
        await link.close()
        await received.until(lambda: bool(received.lost))
        assert received.lost == ["me"]
        with pytest.raises(LinkLost, match="closed by us"):
            link.send_nowait(a_report(1))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_stops_ends_the_link(kind: LinkKind) -> None:
    async with a_link(kind) as (link, received):
        await received.server.stop()
        assert await asyncio.wait_for(link.closed, 5)
        await received.until(lambda: received.lost == ["me"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_receiver_tells_nothing(kind: LinkKind) -> None:
    async with a_link(kind) as (link, received):
        received.receiver.close()
        link.send_nowait(*a_result(1, b"x"))
        await received.server.stop()
        assert await asyncio.wait_for(link.closed, 5)
        assert (received.lost, received.numbers) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_newer_link_of_the_same_sender_takes_over(kind: LinkKind) -> None:
    neighbours = Neighbours() if kind is LinkKind.SAME_PROCESS else None
    use_memory = kind is LinkKind.SHARED_MEMORY
    async with a_receiver(shared_memory=use_memory, neighbours=neighbours) as received:
        older = LinkSender(received.address, "me", neighbours=neighbours)
        await older.opened()
        newer = LinkSender(received.address, "me", neighbours=neighbours)
        await newer.opened()
        assert await asyncio.wait_for(older.closed, 5)
        newer.send_nowait(a_report(7))
        await received.frames(1)
        assert received.lost == []
        await newer.close()
        await received.until(lambda: received.lost == ["me"])


async def test_frames_that_lie_end_a_link_inside_a_process() -> None:
    async with a_link(LinkKind.SAME_PROCESS) as (link, received):
        tensor = TensorHeader(datatype="FP32", shape=[1], byte_size=4)
        lie = FrameHeader(result=BatchResult(tensors=[tensor]))
        link.send_nowait(lie)
        assert "expected 4 bytes" in await asyncio.wait_for(link.closed, 5)
        await received.until(lambda: bool(received.lost))
        assert received.numbers == []


# What stands in the way of shared memory


async def kind_of_link(received: Received) -> LinkKind | None:
    link = LinkSender(received.address, "me", shared_bytes=1 << 20)
    link.send_nowait(*a_result(1, bytes(2 << 20)))
    await received.frames(1)
    kind = link.kind
    await link.close()
    return kind


async def test_no_memory_for_a_segment_means_grpc(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    async with a_receiver() as received:
        assert await kind_of_link(received) is LinkKind.STREAM
    assert "goes over gRPC: no shared memory" in caplog.text


async def test_a_socket_that_cannot_be_reached_means_grpc(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As from a container with a network of its own."""

    def listen_elsewhere() -> tuple[str, socket.socket]:
        _, listener = listen()
        return "penstock-" + "0" * 32, listener

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(shared_sender, "listen", listen_elsewhere)
    async with a_receiver() as received:
        assert await kind_of_link(received) is LinkKind.STREAM
    assert "goes over gRPC: no shared memory: [Errno 111] Connection refused" in caplog.text


async def test_a_socket_that_says_nothing_means_grpc(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(shared_sender.SharedOffer, "_accept", lambda _: None)
    monkeypatch.setattr(shared_reader, "_PATIENCE_S", 0.1)
    async with a_receiver() as received:
        assert await kind_of_link(received) is LinkKind.STREAM
    assert "expected a segment within 0.1 s, found nothing" in caplog.text


@pytest.mark.parametrize("commits", [0, 1])
async def test_memory_that_does_not_grow_slows_a_link_but_stops_nothing(
    commits: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = [commits]
    allocate = os.posix_fallocate

    def refuse(file: int, start: int, size: int) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        allocate(file, start, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    sent = [os.urandom(3 << 20) for _ in range(4)]
    async with a_link(LinkKind.SHARED_MEMORY, shared_bytes=16 << 20) as (link, received):
        for number, data in enumerate(sent):
            link.send_nowait(*a_result(number, data))
        await received.frames(len(sent))
        assert received.data == sent
    assert "No space left on device" in caplog.text

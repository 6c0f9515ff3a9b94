"""Links over real loopback sockets: order, loss, bounds, hostile peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import grpc.aio
import pytest
import pytest_asyncio

from penstock.domain.errors import PenstockError
from penstock.rpc.channels import open_channel
from penstock.rpc.frames import pack
from penstock.rpc.links import (
    METHOD,
    SERVICE,
    LinkFull,
    LinkLost,
    LinkReceiver,
    LinkSender,
    LinkServer,
)
from protos.link_pb2 import BatchResult, CancelBatch, FrameHeader, Hello, TensorHeader


@dataclass
class Receiving:
    address: str = ""
    frames: list[tuple[str, int]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def on_frame(self, sender: str, header: FrameHeader, _: Sequence[memoryview]) -> None:
        self.frames.append((sender, header.cancel.batch_id or header.result.batch_id))
        self._tell()

    def on_peer_lost(self, sender: str) -> None:
        self.lost.append(sender)
        self._tell()

    def _tell(self) -> None:
        self._telling = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until(self, *, frames: int = 0, lost: int = 0) -> None:
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: len(self.frames) >= frames and len(self.lost) >= lost)


@pytest_asyncio.fixture
async def receiving() -> AsyncIterator[Receiving]:
    result = Receiving()
    server = LinkServer("127.0.0.1")
    result.address = server.address
    receiver = LinkReceiver(result.on_frame, result.on_peer_lost)
    await server.start(receiver)
    yield result
    receiver.close()
    await server.stop()


def a_frame(number: int) -> FrameHeader:
    return FrameHeader(cancel=CancelBatch(batch_id=number))


async def test_frames_arrive_in_order_even_if_sent_before_the_link_is_open(
    receiving: Receiving,
) -> None:
    link = LinkSender(receiving.address, "me")
    for number in range(1, 200):
        link.send_nowait(a_frame(number))
    await receiving.until(frames=199)
    assert receiving.frames == [("me", number) for number in range(1, 200)]
    assert link.held_bytes == 0
    await link.close()


async def test_both_ends_learn_of_the_end(receiving: Receiving) -> None:
    link = LinkSender(receiving.address, "me")
    await link.opened()
    await link.close()
    assert link.closed.result() == "closed by us"
    await receiving.until(lost=1)
    assert receiving.lost == ["me"]
    with pytest.raises(LinkLost, match="closed by us"):
        link.send_nowait(a_frame(1))


async def test_a_server_that_ends_is_a_loss() -> None:
    server = LinkServer("127.0.0.1")
    await server.start(LinkReceiver(lambda *_: None, lambda _: None))
    link = LinkSender(server.address, "me")
    await link.opened()
    await server.stop()
    assert await asyncio.wait_for(link.closed, 5)
    with pytest.raises(LinkLost):
        await link.send(a_frame(1))


async def test_nobody_at_the_address_is_a_loss() -> None:
    link = LinkSender("127.0.0.1:1", "me", connect_timeout_s=0.2)
    with pytest.raises(LinkLost, match=r"no answer within 0\.2 s"):
        await link.opened()


async def test_a_newer_link_of_the_same_sender_takes_over(receiving: Receiving) -> None:
    old = LinkSender(receiving.address, "me")
    await old.opened()
    new = LinkSender(receiving.address, "me")
    await new.opened()
    await old.close()
    new.send_nowait(a_frame(1))
    await receiving.until(frames=1)
    assert receiving.lost == []
    await new.close()
    await receiving.until(lost=1)


async def test_what_waits_for_the_peer_is_bounded(receiving: Receiving) -> None:
    link = LinkSender(receiving.address, "me", limit_bytes=1000)
    header = FrameHeader(
        result=BatchResult(
            batch_id=1, tensors=[TensorHeader(datatype="UINT8", shape=[5000], byte_size=5000)]
        )
    )
    link.send_nowait(header, [bytes(5000)])  # a single frame may be larger
    with pytest.raises(LinkFull):
        link.send_nowait(a_frame(2))
    await link.send(a_frame(3))  # waits for room
    await receiving.until(frames=2)
    await link.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b"junk"],
        [pack(a_frame(1))],
        [pack(FrameHeader(hello=Hello(sender="it"))), b"\xff\xff\xff\xff"],
    ],
    ids=["junk", "no hello", "junk after hello"],
)
async def test_a_hostile_peer_is_cut_off_in_words(
    frames: list[bytes], receiving: Receiving
) -> None:
    async with open_channel(receiving.address) as channel:
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push()
        for frame in frames:
            await call.write(frame)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "expected" in await call.details()
    assert receiving.frames == []
    link = LinkSender(receiving.address, "me")
    await link.opened()
    await link.close()


async def test_a_message_that_is_too_large_is_refused(receiving: Receiving) -> None:
    unlimited = (("grpc.max_send_message_length", -1),)
    async with grpc.aio.insecure_channel(receiving.address, options=unlimited) as channel:
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push()
        await call.write(pack(FrameHeader(hello=Hello(sender="it"))))
        await call.write(bytes(17 << 20))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await receiving.until(lost=1)
    assert receiving.frames == []


async def test_a_taken_port_is_told() -> None:
    server = LinkServer("127.0.0.1")
    with pytest.raises(PenstockError, match=f"cannot listen for links on 127.0.0.1:{server.port}"):
        LinkServer("127.0.0.1", server.port)
    await server.stop()

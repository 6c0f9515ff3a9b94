"""Both ends of links for tests: a receiver that keeps what it gets, and frames to send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.frames import announce
from penstock.rpc.links import LinkReceiver, LinkServer, Neighbours
from protos.link_pb2 import BatchResult, FrameHeader, StageReport


@dataclass
class Received:
    """What came to a receiver.

    Attributes:
        keep: whether views are kept, as a batch keeps them; else only what lies in them.
    """

    server: LinkServer
    keep: bool = False
    numbers: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    views: list[memoryview] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    receiver: LinkReceiver = field(init=False)

    def on_frame(self, _: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        self.numbers.append(header.result.batch_id or header.report.batch_id)
        self.data += [] if self.keep else [bytes(each) for each in views]
        self.views += views if self.keep else []
        self.news.set()

    def on_peer_lost(self, sender: str) -> None:
        self.lost.append(sender)
        self.news.set()

    @property
    def address(self) -> str:
        return self.server.address

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not wanted():
                self.news.clear()
                await self.news.wait()

    async def frames(self, count: int) -> None:
        await self.until(lambda: len(self.numbers) >= count)


@asynccontextmanager
async def a_receiver(
    *,
    keep: bool = False,
    shared_memory: bool = True,
    neighbours: Neighbours | None = None,
    device: DeviceDoor | None = None,
) -> AsyncIterator[Received]:
    server = LinkServer("127.0.0.1", neighbours=neighbours)
    received = Received(server, keep)
    received.receiver = LinkReceiver(
        received.on_frame, received.on_peer_lost, shared_memory=shared_memory, device=device
    )
    await server.start(received.receiver)
    yield received
    received.receiver.close()
    await server.stop()


def a_result(number: int, data: bytes) -> tuple[FrameHeader, list[bytes]]:
    """Return a frame that carries data, as `send` takes it."""
    header = FrameHeader(result=BatchResult(batch_id=number))
    announce(header.result.tensors, "x", "UINT8", (len(data),), [data])
    return header, [data]


def a_report(number: int) -> FrameHeader:
    return FrameHeader(report=StageReport(batch_id=number))

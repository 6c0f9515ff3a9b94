"""Both ends of links through device memory, on devices that are not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from penstock.cuda.memory import DeviceMemory
from penstock.domain.devices import DeviceBytes, DeviceTensor
from penstock.domain.tensors import Tensor
from penstock.rpc.device_frames import announce_all, parts_of
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import LinkReceiver, LinkSender, LinkServer
from penstock.rpc.local_offer import DeviceSource
from protos.link_pb2 import BatchResult, FrameHeader
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.link_ends import Received

POOL_BYTES = (2 << 20) - 256  # one block of the driver, with what is reserved


def door(fake: FakeCudaMemory | None, received: DeviceReceived) -> DeviceDoor | None:
    if fake is None:
        return None
    return DeviceDoor(DeviceMemory(bindings=fake), received.on_device_frame)


def source(fake: FakeCudaMemory | None, pool_bytes: int = POOL_BYTES) -> DeviceSource | None:
    return None if fake is None else DeviceSource(DeviceMemory(bindings=fake), pool_bytes)


@dataclass
class DeviceReceived(Received):
    """What came to a receiver; what came on the device is copied on a stream.

    Attributes:
        keep: whether views and places are kept.
        ways: for each tensor how it came.
    """

    stream: int = 0
    ways: list[str] = field(default_factory=list)
    places: list[DeviceBytes] = field(default_factory=list)
    copies: list[np.ndarray] = field(default_factory=list)

    def on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        self.ways += ["host"] * len(views)
        super().on_frame(sender, header, views)

    def on_device_frame(
        self,
        _: str,
        header: FrameHeader,
        views: Sequence[memoryview],
        places: Mapping[int, DeviceBytes],
    ) -> None:
        self.numbers.append(header.result.batch_id)
        for index, view in enumerate(views):
            self.ways.append("device" if index in places else "host")
            if self.keep and index in places:
                self.places.append(places[index])
            else:
                self.data.append(self.copied(places[index]) if index in places else bytes(view))
        self.news.set()

    def copied(self, place: DeviceBytes) -> bytes:
        """Copy to where the stream writes; whole at once only on stream 0."""
        copy = np.zeros(place.size, np.uint8)
        self.copies.append(copy)
        place.copy_to(copy.ctypes.data, self.stream)
        return copy.tobytes()


@asynccontextmanager
async def a_device_receiver(
    fake: FakeCudaMemory | None, *, keep: bool = False, stream: int = 0
) -> AsyncIterator[DeviceReceived]:
    server = LinkServer("127.0.0.1")
    received = DeviceReceived(server, keep, stream=stream)
    received.receiver = LinkReceiver(
        received.on_frame, received.on_peer_lost, device=door(fake, received)
    )
    await server.start(received.receiver)
    try:
        yield received
    finally:
        received.receiver.close()
        await server.stop()


def on_device(link: LinkSender, name: str, data: bytes) -> DeviceTensor | None:
    """Leave data on the device for a receiver, if there is a slot."""
    slot = link.pool.take(len(data)) if link.pool is not None else None
    if slot is None:
        return None
    slot.write(np.frombuffer(data, np.uint8).ctypes.data, 0)
    return DeviceTensor(name, "UINT8", (len(data),), slot)


def in_host(name: str, data: bytes) -> Tensor:
    return Tensor(name, "UINT8", (len(data),), data)


async def send(link: LinkSender, number: int, *tensors: Tensor | DeviceTensor) -> None:
    header = FrameHeader(result=BatchResult(batch_id=number))
    announce_all(header.result.tensors, tensors, link.pool)
    await link.send(header, parts_of(tensors))


async def send_data(link: LinkSender, number: int, data: bytes) -> None:
    """Send data on the device if there is room, else from the host."""
    await send(link, number, on_device(link, "x", data) or in_host("x", data))


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        for pause_s in itertools.repeat(0.001):
            if wanted():
                return
            await asyncio.sleep(pause_s)

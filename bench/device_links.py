"""Both ends of links through device memory, for `bench/links.py`.

A tensor lies in the sender's device memory before it is sent, and has been received when it lies in
the receiver's. When it left travels beside it, in host memory. Needs cuda-bindings, no torch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from bench.link_receiver import STAMP_BYTES, Taker
from penstock.cuda.memory import DeviceMemory
from penstock.domain.devices import DeviceBytes, DeviceTensor
from penstock.domain.tensors import Tensor
from penstock.domain.units import BYTES_PER_MIB, Bytes
from penstock.rpc.device_frames import announce_all, parts_of
from penstock.rpc.device_pool import DevicePool, Slot
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import LinkLost, LinkSender
from penstock.rpc.local_offer import DeviceSource
from protos.link_pb2 import BatchResult, FrameHeader

LARGEST_BYTES: Bytes = 16 * BYTES_PER_MIB
_POOL_BYTES: Bytes = 4 * LARGEST_BYTES
_STREAM = 0


class DeviceSender:
    """Sends tensors that lie on this process's device.

    Raises:
        DeviceRefused: there is no device, or not enough memory.
    """

    def __init__(self) -> None:
        self._memory = DeviceMemory()
        self._made = self._memory.export(LARGEST_BYTES).pointer
        self._written = self._memory.new_event()
        self.source = DeviceSource(self._memory, _POOL_BYTES)

    async def send(self, link: LinkSender, size: Bytes) -> None:
        """Send a tensor of a size as soon as there is room on the device."""
        pool = link.pool
        if pool is None:
            raise LinkLost("the link has no device memory")
        left_ns = time.monotonic_ns().to_bytes(STAMP_BYTES, "little")
        slot = await _slot(pool, size)
        slot.write(self._made, _STREAM)
        _wait(self._memory, self._written)
        stamp = Tensor("left", "UINT8", (STAMP_BYTES,), left_ns)
        tensors = (stamp, DeviceTensor("x", "UINT8", (size,), slot))
        header = FrameHeader(result=BatchResult(batch_id=1))
        announce_all(header.result.tensors, tensors, pool)
        await link.send(header, parts_of(tensors))

    def close(self) -> None:
        """Give the memory back that tensors were made in."""
        self._memory.free(self._made)
        self._memory.forget(self._written)


class DeviceTaker:
    """Copies what comes to this process's device, and counts it.

    Args:
        taker: counts.

    Raises:
        DeviceRefused: there is no device, or not enough memory.
    """

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._memory = DeviceMemory()
        self._taken = self._memory.export(LARGEST_BYTES).pointer
        self._read = self._memory.new_event()
        self.door = DeviceDoor(self._memory, self._on_frame)

    def _on_frame(
        self,
        sender: str,
        header: FrameHeader,
        views: Sequence[memoryview],
        places: Mapping[int, DeviceBytes],
    ) -> None:
        del sender, header
        for place in places.values():
            place.copy_to(self._taken, _STREAM)
            _wait(self._memory, self._read)
            self._taker.run.take(views[0], place.size)


async def _slot(pool: DevicePool, size: Bytes) -> Slot:
    while True:
        slot = pool.take(size)
        if slot is not None:
            return slot
        await asyncio.sleep(0)


def _wait(memory: DeviceMemory, event: object) -> None:
    """Wait for the stream, which takes microseconds: less than another thread would."""
    memory.record(event, _STREAM)
    while not memory.is_done(event):
        pass

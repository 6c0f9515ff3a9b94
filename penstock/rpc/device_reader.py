"""Links through device memory, the end that reads: shared memory, and tensors on the device.

Knows nothing of what is computed with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from penstock.cuda.memory import DeviceMemory
from penstock.domain.devices import DeviceBytes
from penstock.rpc.carriers import LinkKind
from penstock.rpc.device_views import Mapped
from penstock.rpc.device_wire import BYE, check_region, on_device, read_offer
from penstock.rpc.frames import announced
from penstock.rpc.inlet import Inlet
from penstock.rpc.shared_reader import Offered, SharedReader
from protos.link_pb2 import FrameHeader

# As `OnFrame`, with what lies on the device, by its place among the tensors.
OnDeviceFrame: TypeAlias = Callable[
    [str, FrameHeader, Sequence[memoryview], Mapping[int, DeviceBytes]], None
]


@dataclass(frozen=True, slots=True)
class DeviceDoor:
    """Lets frames in whose tensors lie on a device.

    Attributes:
        memory: of the device that is to read them.
        on_frame: takes them; other frames go where frames go.
    """

    memory: DeviceMemory
    on_frame: OnDeviceFrame


async def open_device(offered: Offered, door: DeviceDoor) -> DeviceReader:
    """Map the device memory that a sender offers with its shared memory.

    Raises:
        DeviceRefused: it cannot be; what was offered is left as it is.
    """
    # Mapping takes up to hundreds of milliseconds, in which other links go on.
    offer = read_offer(offered.more)
    mapping = asyncio.get_running_loop().run_in_executor(None, Mapped, door.memory, offer)
    try:
        mapped = await asyncio.shield(mapping)
    except asyncio.CancelledError:
        mapping.add_done_callback(lambda _: _undo(mapping, offered))
        raise
    return DeviceReader(offered, mapped, door.on_frame)


def _undo(mapping: asyncio.Future[Mapped], offered: Offered) -> None:
    """Unmap what nobody waits for any more, and only then let the sender know."""
    if mapping.exception() is None:
        mapping.result().close()
    offered.connection.close()


class DeviceReader(SharedReader):
    """Reads messages as `SharedReader` does; they may name tensors on the device."""

    kind = LinkKind.CUDA_IPC

    def __init__(self, offered: Offered, mapped: Mapped, on_frame: OnDeviceFrame) -> None:
        super().__init__(offered.connection, offered.segment)
        self._mapped = mapped
        self._on_device_frame = on_frame
        self._newest = 0
        self._orderly = False
        self._hung_up = False
        mapped.freed = self._give_device_back

    def start(self, inlet: Inlet) -> None:
        """Hand messages to an inlet from now on."""
        inlet.on_device = self._take_device_frame
        super().start(inlet)

    def _take(self, inlet: Inlet, data: bytes) -> None:
        if data == BYE:
            self._orderly = True
        else:
            super()._take(inlet, data)

    def _take_device_frame(
        self, sender: str, header: FrameHeader, tensors: Sequence[memoryview]
    ) -> None:
        places: dict[int, DeviceBytes] = {}
        for index, tensor in enumerate(announced(header)):
            if tensor.HasField("device"):
                region = tensor.device
                check_region(tensor, self._newest, self._mapped.size)
                self._newest = region.generation
                places[index] = self._mapped.lease(
                    region.generation, region.start, tensor.byte_size
                )
        self._on_device_frame(sender, header, tensors, places)

    def _give_device_back(self, generation: int) -> None:
        self._give_back(on_device(generation))
        self._part_when_read()

    def _hang_up(self) -> None:
        """Stay until all is read, or the sender has died."""
        self._hung_up = True
        self._loop.add_reader(self._connection, self._hear_the_end)
        self._part_when_read()

    def _hear_the_end(self) -> None:
        try:
            data = self._connection.recv(len(BYE))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data == BYE:
            self._orderly = True
        if not data:
            self._loop.remove_reader(self._connection)
            if not self._orderly:
                self._mapped.lose()

    def _part_when_read(self) -> None:
        """Unmap, and only then let the sender know."""
        if not self._hung_up or self._mapped.held:
            return
        self._hung_up = False
        self._loop.remove_reader(self._connection)
        unmapped = self._loop.run_in_executor(None, self._mapped.close)
        unmapped.add_done_callback(self._parted)

    def _parted(self, unmapped: asyncio.Future[None]) -> None:
        unmapped.exception()  # a device that has failed has unmapped everything
        self._connection.close()

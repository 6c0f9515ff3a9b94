"""Links through device memory, the end that writes: shared memory, and slots on the device.

The receiver hangs up when it has read what it was sent and unmapped the memory, or when it dies;
not before that is the memory given back. Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from penstock.domain.units import Bytes
from penstock.rpc.carriers import LinkKind
from penstock.rpc.device_pool import DevicePool
from penstock.rpc.device_wire import BYE, device_generation
from penstock.rpc.segment import Segment
from penstock.rpc.shared_sender import SharedCarrier

_READ_BYTES = 1 << 12


class DeviceCarrier(SharedCarrier):
    """Writes messages as `SharedCarrier` does; they may name slots of a pool.

    Attributes:
        pool: where tensors are left that stay on the device.
    """

    kind = LinkKind.CUDA_IPC

    def __init__(
        self, connection: socket.socket, segment: Segment, room: asyncio.Event, pool: DevicePool
    ) -> None:
        super().__init__(connection, segment, room)
        self.pool = pool

    @property
    def held_bytes(self) -> Bytes:
        """Bytes of regions and slots that the receiver has not given back."""
        return super().held_bytes + self.pool.held_bytes

    def _take_back(self, generation: int) -> None:
        number = device_generation(generation)
        if number:
            self.pool.give_back(number)
        else:
            super()._take_back(generation)

    def _hang_up(self) -> None:
        free_after(self._connection, self.pool)


def free_after(connection: socket.socket, pool: DevicePool) -> None:
    """Tell a receiver that we go, and give a pool's memory back when it has hung up.

    Args:
        connection: to the receiver; ours to close, nobody listens to it.
    """
    loop = asyncio.get_running_loop()
    pool.retire()
    with suppress(OSError):  # it is gone, or does not listen: that we go it hears in any case
        connection.send(BYE)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)

    def hear() -> None:
        try:
            if connection.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        loop.remove_reader(connection)
        connection.close()
        loop.run_in_executor(None, pool.close)

    loop.add_reader(connection, hear)

"""What a sender offers to a receiver that may be on its own host: shared memory, device memory.

Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from penstock.cuda.memory import DeviceMemory, DeviceRefused
from penstock.domain.units import Bytes
from penstock.rpc.carriers import Carrier, LinkKind
from penstock.rpc.device_pool import DevicePool
from penstock.rpc.device_sender import DeviceCarrier, free_after
from penstock.rpc.shared_sender import SharedCarrier, SharedOffer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceSource:
    """Where a sender's tensors may be left.

    Attributes:
        memory: of the device that they are made on.
        pool_bytes: how much of it one link may take.
    """

    memory: DeviceMemory
    pool_bytes: Bytes


class LocalOffer:
    """Shared memory and, where there is a device, memory of that.

    Args:
        shared: the offer that both are made with.
        pool: of the device.
    """

    def __init__(self, shared: SharedOffer, pool: DevicePool | None) -> None:
        self._shared = shared
        self._pool = pool
        self.socket_name = shared.name
        self.device = pool.device if pool is not None else ""

    def carrier(self, answer: str | bytes | None, room: asyncio.Event) -> Carrier | None:
        """Return what carries messages, if the receiver takes any of this.

        Args:
            answer: the kind of link that the receiver wants.
            room: set when there is more room, and when the link has ended.

        Raises:
            InvalidInput: the receiver contradicts itself.
        """
        if answer == LinkKind.CUDA_IPC.value and self._pool is not None:
            pool, self._pool = self._pool, None
            return DeviceCarrier(*self._shared.taken(), room, pool)
        if answer == LinkKind.SHARED_MEMORY.value:
            return SharedCarrier(*self._shared.taken(), room)
        return None

    def close(self) -> None:
        """Withdraw what was not taken."""
        pool, self._pool = self._pool, None
        if pool is not None and self._shared.connected:
            connection, segment = self._shared.taken()
            segment.close()
            free_after(connection, pool)
        elif pool is not None:
            asyncio.get_running_loop().run_in_executor(None, pool.close)
        self._shared.close()


async def make_offer(
    address: str, shared_bytes: Bytes, source: DeviceSource | None
) -> LocalOffer | None:
    """Return an offer, or nothing if there is nothing to share.

    Args:
        address: of the receiver, for messages.
        shared_bytes: of shared memory; 0: none.
        source: of device memory; None: none.
    """
    if not shared_bytes:
        return None
    pool = await _make_pool(address, source) if source is not None else None
    try:
        return LocalOffer(SharedOffer(shared_bytes, pool.offer.pack() if pool else b""), pool)
    except OSError as error:
        _log.warning("link to %s goes over gRPC: no shared memory: %s", address, error)
        if pool is not None:
            pool.close()
        return None


async def _make_pool(address: str, source: DeviceSource) -> DevicePool | None:
    try:
        return await asyncio.to_thread(DevicePool, source.memory, source.pool_bytes)
    except DeviceRefused as error:
        _log.warning("link to %s copies through the host: no device memory: %s", address, error)
        return None

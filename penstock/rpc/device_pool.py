"""Device memory that the sender of a link shares with its receiver, and which of it is in use.

Registered once, when the link opens. Slots are taken and written in any thread, sent and given back
on the event loop. Knows nothing of sockets.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque

from penstock.cuda.memory import DeviceMemory, DeviceRefused, Event
from penstock.domain.devices import DeviceSlot
from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes
from penstock.rpc.arena import Arena, Region
from penstock.rpc.device_wire import RESERVED_BYTES, TOKEN_BYTES, DeviceOffer
from protos.link_pb2 import DeviceRegion

_LOOK_AGAIN_S = 0.0005


class Slot:
    """A region of a pool: ours until it is sent, then the receiver's until it gives it back."""

    __slots__ = ("_pool", "region", "size")

    def __init__(self, pool: DevicePool, region: Region, size: Bytes) -> None:
        self._pool = pool
        self.region: Region | None = region  # None once it is sent
        self.size = size

    def write(self, source: int, stream: int) -> None:
        """Queue a copy from memory of this process on a stream; fills the slot.

        Does nothing once the link is lost: then it will not be sent.

        Raises:
            DeviceRefused: it cannot be queued.
        """
        if self.region is not None:
            self._pool.write(self.region, source, self.size, stream)

    def __del__(self) -> None:
        """Free the region of a slot that was never sent."""
        if self.region is not None:
            self._pool.drop(self.region)


class DevicePool:
    """Hands out slots, each of them to one tensor at a time.

    A slot gets its number when it is sent, so numbers grow in the order in which they are sent.

    Args:
        memory: of the device.
        capacity_bytes: for tensors.

    Raises:
        DeviceRefused: there is not enough memory, or it cannot be shared.
    """

    def __init__(self, memory: DeviceMemory, capacity_bytes: Bytes) -> None:
        self._memory = memory
        self._exported = memory.export(capacity_bytes + RESERVED_BYTES)
        self._token = secrets.token_bytes(TOKEN_BYTES)
        try:
            memory.put(self._exported.pointer, self._token)
        except DeviceRefused:
            memory.free(self._exported.pointer)
            raise
        self._arena = Arena(self._exported.size - RESERVED_BYTES)
        self._lock = threading.Lock()
        self._dropped: deque[Region] = deque()
        self._sent: dict[int, Region] = {}
        self._number = 0
        self._writes: dict[int, Event] = {}  # by stream: done when what was queued is written
        self._open = True
        self._closed = False

    @property
    def device(self) -> str:
        """The device's UUID."""
        return self._memory.name

    @property
    def offer(self) -> DeviceOffer:
        """What lets another process map it."""
        return DeviceOffer(self._exported.handle, self._token, self._exported.size)

    @property
    def held_bytes(self) -> Bytes:
        """Bytes of slots that are out."""
        with self._lock:
            self._collect()
            return self._arena.held_bytes

    def take(self, size_bytes: Bytes) -> Slot | None:
        """Return a slot, or nothing if no gap is large enough, or nothing is sent any more."""
        with self._lock:
            self._collect()
            # Aligned as the driver's own allocations are.
            whole = -(-size_bytes // RESERVED_BYTES) * RESERVED_BYTES
            region = self._arena.take(whole) if self._open and size_bytes else None
        return None if region is None else Slot(self, region, size_bytes)

    def write(self, region: Region, source: int, size: Bytes, stream: int) -> None:
        """Queue a copy into a region, unless the memory has been given back."""
        to = self._exported.pointer + RESERVED_BYTES + region.start
        with self._lock:
            if self._closed:
                return
            self._memory.copy(to, source, size, stream)
            if stream not in self._writes:
                self._writes[stream] = self._memory.new_event()
            self._memory.record(self._writes[stream], stream)

    def drop(self, region: Region) -> None:
        """Free a region that was not sent; at any point, also of our own work."""
        self._dropped.append(region)  # not under the lock: this thread may hold it

    def owns(self, slot: DeviceSlot) -> bool:
        """Return whether a slot is of this pool and not yet sent."""
        return isinstance(slot, Slot) and slot._pool is self and slot.region is not None

    def send(self, slot: DeviceSlot) -> DeviceRegion:
        """Give a slot of our own to the receiver; return what names it."""
        if not isinstance(slot, Slot) or slot.region is None:
            raise TypeError("a slot that is not ours")
        self._number += 1
        self._sent[self._number], slot.region = slot.region, None
        start = RESERVED_BYTES + self._sent[self._number].start
        return DeviceRegion(generation=self._number, start=start)

    def give_back(self, number: int) -> None:
        """Take a slot back that was sent.

        Raises:
            InvalidInput: it is not out.
        """
        region = self._sent.pop(number, None)
        if region is None:
            found = f"generation {number}"
            raise InvalidInput("device memory", "released", "a region in use", found)
        self.drop(region)

    def retire(self) -> None:
        """Hand out nothing from now on."""
        self._open = False

    def close(self) -> None:
        """Give the memory back; nobody may have it open. Waits until nothing is written there."""
        with self._lock:
            self._closed = True
        for event in self._writes.values():
            while not self._memory.is_done(event):
                time.sleep(_LOOK_AGAIN_S)
            self._memory.forget(event)
        self._memory.free(self._exported.pointer)

    def _collect(self) -> None:
        while self._dropped:
            self._arena.give_back(self._dropped.popleft().generation)

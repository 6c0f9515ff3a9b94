"""A sender's device memory as its receiver sees it: mapped, and which of it is still being read.

A region is given back when nobody looks at it any more and the device has read what it was asked to
read. No thread waits for that. Knows nothing of sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from penstock.cuda.memory import DeviceMemory, DeviceRefused, Event
from penstock.domain.devices import DeviceBytes
from penstock.domain.units import Bytes
from penstock.rpc.carriers import LinkLost
from penstock.rpc.device_wire import TOKEN_BYTES, DeviceOffer

_LOOK_AGAIN_S = 0.0005


class _Lease:
    """One region, as long as any view of it lives; remembers where it is read."""

    __slots__ = ("_mapped", "number", "reads")

    def __init__(self, mapped: Mapped, number: int) -> None:
        self._mapped = mapped
        self.number = number
        self.reads: dict[int, Event] = {}  # by stream: done when what was asked for is read

    def __del__(self) -> None:
        self._mapped.let_go(self.number, self.reads)


class _View:
    """Bytes of a region."""

    __slots__ = ("_lease", "_mapped", "_pointer", "size")

    def __init__(self, mapped: Mapped, lease: _Lease, pointer: int, size: Bytes) -> None:
        self._mapped = mapped
        self._lease = lease
        self._pointer = pointer
        self.size = size

    def part(self, start: int, end: int) -> _View:
        """Return bytes [start, end)."""
        return _View(self._mapped, self._lease, self._pointer + start, end - start)

    def copy_to(self, pointer: int, stream: int) -> None:
        """Queue a copy on a stream. The region stays until it is done.

        Raises:
            LinkLost: the sender died, and its memory with it.
            DeviceRefused: it cannot be queued.
        """
        self._mapped.copy(self._lease, pointer, self._pointer, self.size, stream)


class Mapped:
    """The memory that a sender has offered. Belongs to one event loop.

    Args:
        memory: of our device.
        offer: of the sender.

    Attributes:
        freed: called with the number of a region that nobody reads any more.

    Raises:
        DeviceRefused: it cannot be mapped here, or is not what was offered.
    """

    def __init__(self, memory: DeviceMemory, offer: DeviceOffer) -> None:
        self._memory = memory
        self.size = offer.size
        self._pointer = memory.open(offer.handle)
        self._lost = False
        self._held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.freed: Callable[[int], None] = lambda _: None
        try:
            found = memory.get(self._pointer, TOKEN_BYTES)
        except DeviceRefused:
            memory.close(self._pointer)
            raise
        if found != offer.token:
            memory.close(self._pointer)
            raise DeviceRefused("what was mapped is not what was offered")

    @property
    def held(self) -> int:
        """How many regions are looked at or read."""
        return self._held

    def lease(self, number: int, start: int, size: Bytes) -> DeviceBytes:
        """Return a region to be read."""
        self._loop = asyncio.get_running_loop()
        self._held += 1
        return _View(self, _Lease(self, number), self._pointer + start, size)

    def lose(self) -> None:
        """Read nothing any more: the sender has died."""
        self._lost = True

    def close(self) -> None:
        """Unmap it; nothing may be held. May wait for the device."""
        self._memory.close(self._pointer)

    def copy(self, lease: _Lease, to: int, source: int, size: Bytes, stream: int) -> None:
        """Queue a copy, and remember it."""
        if self._lost:
            raise LinkLost("the sender has died, and the device memory it shared with it")
        event = lease.reads.get(stream) or self._memory.new_event()
        lease.reads[stream] = event
        self._memory.copy(to, source, size, stream)
        self._memory.record(event, stream)

    def let_go(self, number: int, reads: dict[int, Event]) -> None:
        """Take note that nobody looks at a region any more; in any thread, at any point."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self._free_when_read, number, reads)

    def _free_when_read(self, number: int, reads: dict[int, Event]) -> None:
        if not all(self._memory.is_done(each) for each in reads.values()):
            asyncio.get_running_loop().call_later(
                _LOOK_AGAIN_S, self._free_when_read, number, reads
            )
            return
        for event in reads.values():
            self._memory.forget(event)
        self._held -= 1
        self.freed(number)

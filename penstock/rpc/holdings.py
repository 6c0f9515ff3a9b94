"""How many bytes of received frames are still looked at by somebody.

A frame is handed out as a view; it counts until the last view of it, or of any part of it, is gone,
in whichever thread that happens. Belongs to one event loop. Knows nothing of links.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes

_SMALL_BYTES: Bytes = 16 << 10  # up to here a copy costs less than an array


class _Copied(bytearray):
    """Bytes that can be watched."""

    __slots__ = ("__weakref__",)


class _Lease(weakref.ref[Any]):
    """Watches what lies under all views of some bytes."""

    __slots__ = ("freed", "size")

    size: Bytes
    freed: Callable[[], None] | None


class Holdings:
    """Counts leased bytes.

    Args:
        limit_bytes: from here on there is no room.

    Attributes:
        on_room: called when there is room again.
    """

    def __init__(self, limit_bytes: Bytes) -> None:
        self._limit_bytes = limit_bytes
        self.on_room: Callable[[], None] | None = None
        self._held_bytes = 0
        self._leases: dict[int, _Lease] = {}
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def held_bytes(self) -> Bytes:
        """Bytes that are looked at."""
        return self._held_bytes

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return self._held_bytes >= self._limit_bytes

    async def room(self) -> None:
        """Return when there is room."""
        await self._room.wait()

    def lease(self, data: Buffer, freed: Callable[[], None] | None = None) -> memoryview:
        """Return a view of bytes that count until nobody looks at them.

        Args:
            data: not empty.
            freed: called then, on the event loop's thread.
        """
        # Memoryviews cannot be watched; what lies under them can, and lives as long as they do.
        size = len(data)
        under: Any = _Copied(data) if size <= _SMALL_BYTES else np.frombuffer(data, np.uint8)
        self._held_bytes += size
        if self._held_bytes >= self._limit_bytes:
            self._room.clear()
        lease = _Lease(under, self._let_go)
        lease.size, lease.freed = size, freed
        self._leases[id(lease)] = lease
        return memoryview(under)

    def _let_go(self, lease: weakref.ref[Any]) -> None:
        """Count what is gone; called in any thread, at any point."""
        gone = self._leases.pop(id(lease))
        if threading.get_ident() == self._thread:
            self._count(gone)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody counts any more
            self._loop.call_soon_threadsafe(self._count, gone)

    def _count(self, gone: _Lease) -> None:
        self._held_bytes -= gone.size
        if gone.freed is not None:
            gone.freed()
        if self._room.is_set() or self.full:
            return
        self._room.set()
        if self.on_room is not None:
            self.on_room()

"""Which bytes of a link's shared memory are in use: regions, generations, gaps.

The lowest gap that is large enough is taken, and regions may be given back in any order: memory in
use stays small and warm, and a reader that keeps one frame for long keeps that region only. Every
region has a generation that is never used again, so whoever names a region that is gone is found
out. Pure bookkeeping: touches no memory.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes

ALIGNMENT_BYTES = 64  # of a region's start: a cache line


class Region(NamedTuple):
    """Bytes [start, end) that hold one message.

    Attributes:
        generation: counts regions from 1; no two of an arena have the same.
    """

    generation: int
    start: int
    end: int


class Arena:
    """Hands out regions of [0, capacity).

    Invariants: regions and gaps do not overlap and together cover everything; no two gaps touch.

    Args:
        capacity_bytes: how much there is.

    Attributes:
        held_bytes: bytes of all regions that are out.
    """

    def __init__(self, capacity_bytes: Bytes) -> None:
        self._gaps: list[tuple[int, int]] = [(0, capacity_bytes)] if capacity_bytes else []
        self._held: dict[int, Region] = {}
        self._generation = 0
        self.held_bytes: Bytes = 0

    def take(self, size_bytes: Bytes) -> Region | None:
        """Return a new region of at least this size, or nothing if no gap is large enough."""
        size = -(-max(1, size_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        for place, (start, end) in enumerate(self._gaps):
            if end - start >= size:
                rest = [(start + size, end)] if start + size < end else []
                self._gaps[place : place + 1] = rest
                return self._held_from(start, start + size)
        return None

    def give_back(self, generation: int) -> None:
        """Take a region back.

        Raises:
            InvalidInput: no region of this generation is out.
        """
        region = self._held.pop(generation, None)
        if region is None:
            found = f"generation {generation}"
            raise InvalidInput("shared memory", "released", "a region in use", found)
        self.held_bytes -= region.end - region.start
        self._fill(region.start, region.end)

    def cap(self, capacity_bytes: Bytes) -> None:
        """Hand out nothing beyond this from now on."""
        kept = ((start, min(end, capacity_bytes)) for start, end in self._gaps)
        self._gaps = [(start, end) for start, end in kept if start < end]

    def _held_from(self, start: int, end: int) -> Region:
        self._generation += 1
        region = Region(self._generation, start, end)
        self._held[region.generation] = region
        self.held_bytes += end - start
        return region

    def _fill(self, start: int, end: int) -> None:
        """Make a gap, joined with those it touches."""
        place = bisect_left(self._gaps, (start, end))
        first = last = place
        if place and self._gaps[place - 1][1] == start:
            first, start = place - 1, self._gaps[place - 1][0]
        if place < len(self._gaps) and self._gaps[place][0] == end:
            last, end = place + 1, self._gaps[place][1]
        self._gaps[first:last] = [(start, end)]

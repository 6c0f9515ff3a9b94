"""The transfers booked over one direction of a network card.

Unlike an instance, a card does not work through its bookings in the order in which they were made:
a batch that will leave in 100 ms is booked today, and what leaves before that must not wait for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable
from typing import Generic, TypeVar

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros

K = TypeVar("K", bound=Hashable)


class Lane(Generic[K]):
    """Transfers in order of time; nobody reports on them, so they end when they were booked to.

    Invariant: booked intervals do not overlap.
    """

    __slots__ = ("_ends_us", "_keys", "_starts_us")

    def __init__(self) -> None:
        self._starts_us: list[Micros] = []
        self._ends_us: list[Micros] = []
        self._keys: list[K] = []

    def __len__(self) -> int:
        """Return how many transfers are booked."""
        return len(self._keys)

    def gap(self, at_us: Micros, length_us: Micros) -> Micros:
        """Return the first instant from `at_us` on from which it is free for so long."""
        ends_us = self._ends_us
        if not ends_us or at_us >= ends_us[-1]:
            return at_us
        for place in range(bisect_right(ends_us, at_us), len(ends_us)):
            if at_us + length_us <= self._starts_us[place]:
                return at_us
            at_us = max(at_us, ends_us[place])
        return at_us

    def book(self, key: K, start_us: Micros, end_us: Micros) -> None:
        """Book one transfer.

        Raises:
            InvariantViolation: it overlaps another one, or is reversed.
        """
        place = bisect_right(self._starts_us, start_us)
        overlaps = (place > 0 and self._ends_us[place - 1] > start_us) or (
            place < len(self._starts_us) and self._starts_us[place] < end_us
        )
        if overlaps or end_us < start_us:
            raise InvariantViolation(f"{key} cannot be booked on [{start_us}, {end_us}): not free")
        self._starts_us.insert(place, start_us)
        self._ends_us.insert(place, end_us)
        self._keys.insert(place, key)

    def release(self, key: K) -> bool:
        """Forget one transfer; return whether it was known."""
        if key not in self._keys:
            return False
        self._forget(self._keys.index(key))
        return True

    def expire(self, now_us: Micros) -> None:
        """Forget transfers that have ended."""
        while self._ends_us and self._ends_us[0] <= now_us:
            self._forget(0)

    def bookings(self) -> list[tuple[K, Micros, Micros]]:
        """Return key, start and end of each, in order of time."""
        return list(zip(self._keys, self._starts_us, self._ends_us, strict=True))

    def _forget(self, place: int) -> None:
        del self._starts_us[place]
        del self._ends_us[place]
        del self._keys[place]


def gap_in_both(one: Lane[K], other: Lane[K], at_us: Micros, length_us: Micros) -> Micros:
    """Return the first instant from `at_us` on from which two lanes are free for so long."""
    while True:
        first_us = one.gap(at_us, length_us)
        at_us = other.gap(first_us, length_us)
        if at_us == first_us:
            return at_us

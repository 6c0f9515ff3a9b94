"""The bookings of one instance, keyed by batch.

Keyed, because a finish that comes early or late must correct its own booking and no other: a
single "busy until" would free the next batch's booking with it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros

K = TypeVar("K", bound=Hashable)


class Booking(NamedTuple):
    """A half-open interval [start_us, end_us)."""

    start_us: Micros
    end_us: Micros


class Timeline(Generic[K]):
    """Bookings in order of time.

    Invariant: booked intervals do not overlap; each starts at or after the end of the one before.

    Attributes:
        free_us: when all bookings are done if none overruns: `free_at` is never earlier.
    """

    __slots__ = ("_bookings", "_busy_until_us", "_first_end_us", "_last_end_us", "free_us")

    def __init__(self) -> None:
        self._bookings: dict[K, tuple[Micros, Micros]] = {}
        self._busy_until_us: Micros = 0
        self._first_end_us: Micros = 0
        self._last_end_us: Micros = 0
        self.free_us: Micros = 0

    def __len__(self) -> int:
        """Return how many bookings have not been finished."""
        return len(self._bookings)

    def free_at(self, now_us: Micros) -> Micros:
        """Return the first instant from `now_us` on at which all bookings are done.

        A booking cannot have begun before the last finish reported here, and one whose end has
        passed without a report is still running; either pushes back what follows. The bookings
        themselves stay as they were made.
        """
        if now_us > self._first_end_us and self._bookings:
            return self._ends_from(now_us)[1]
        return self.free_us if self.free_us > now_us else now_us

    def book(self, key: K, start_us: Micros, end_us: Micros) -> None:
        """Book one interval after all others.

        Leaves every other booking untouched.

        Raises:
            InvariantViolation: the interval overlaps another booking, is reversed, or the
                batch has a booking here already.
        """
        first = not self._bookings
        overlaps = not first and start_us < self._last_end_us
        if overlaps or end_us < start_us or key in self._bookings:
            last = next(reversed(self._bookings.values()), None)
            raise InvariantViolation(
                f"{key} cannot be booked on [{start_us}, {end_us}): last booking is {last}"
            )
        self._bookings[key] = (start_us, end_us)
        self._last_end_us = end_us
        self.free_us = max(self.free_us, start_us) + end_us - start_us
        if first:
            self._first_end_us = self.free_us

    def finish(self, key: K, at_us: Micros) -> None:
        """Forget this batch's booking: it was being worked on until `at_us`."""
        if self._bookings.pop(key, None) is not None:
            self._busy_until_us = at_us
            self._settle()

    def release(self, key: K) -> None:
        """Forget this batch's booking, if it has one; leaves every other untouched."""
        if self._bookings.pop(key, None) is not None:
            self._settle()

    def bookings(self) -> dict[K, Booking]:
        """Return a copy of the bookings, in order of time."""
        return {key: Booking(*each) for key, each in self._bookings.items()}

    def _settle(self) -> None:
        """Predict anew, after a booking was forgotten."""
        if self._bookings:
            self._last_end_us = next(reversed(self._bookings.values()))[1]
            self._first_end_us, self.free_us = self._ends_from(0)
        else:
            self._first_end_us = self.free_us = self._busy_until_us

    def _ends_from(self, now_us: Micros) -> tuple[Micros, Micros]:
        """Return when the first and the last booking end, none of them before `now_us`."""
        first_us: Micros | None = None
        cursor = self._busy_until_us
        for start_us, end_us in self._bookings.values():
            cursor = max(cursor, start_us) + end_us - start_us
            if first_us is None:
                cursor = max(cursor, now_us)
                first_us = cursor
        return (cursor if first_us is None else first_us), cursor

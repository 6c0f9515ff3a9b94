"""The bookings of one instance.

Each is corrected on its own, because a finish that comes early or late says nothing of the others:
a single "busy until" would free the next batch's booking with it.
"""

from __future__ import annotations

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking


class Timeline:
    """Bookings in order of time.

    Invariant: booked intervals do not overlap; each starts at or after the end of the one before.

    Attributes:
        free_us: when all bookings are done if none overruns: `free_at` is never earlier.
    """

    __slots__ = ("_busy_until_us", "_first", "_first_end_us", "_others", "free_us")

    def __init__(self) -> None:
        self._first: Booking | None = None
        self._others: tuple[Booking, ...] = ()  # behind the first; seldom more than one
        self._busy_until_us: Micros = 0
        self._first_end_us: Micros = 0
        self.free_us: Micros = 0

    def __len__(self) -> int:
        """Return how many bookings have not been finished."""
        return len(self.bookings())

    def free_at(self, now_us: Micros) -> Micros:
        """Return the first instant from `now_us` on at which all bookings are done.

        A booking cannot have begun before the last finish reported here, and one whose end has
        passed without a report is still running; either pushes back what follows. The bookings
        themselves stay as they were made.
        """
        if now_us > self._first_end_us and self._first is not None:
            return self._ends_from(now_us)[1]
        return self.free_us if self.free_us > now_us else now_us

    def book(self, booking: Booking) -> None:
        """Add a booking after all others, which stay as they are.

        Raises:
            InvariantViolation: it overlaps another booking, is reversed, or is here already.
        """
        start_us, end_us = booking.start_us, booking.end_us
        last = self._others[-1] if self._others else self._first
        if end_us < start_us or (last is not None and (start_us < last.end_us or last is booking)):
            raise InvariantViolation(f"{booking} cannot be made: the last one is {last}")
        self.free_us = max(self.free_us, start_us) + end_us - start_us
        if self._first is None:
            self._first = booking
            self._first_end_us = self.free_us
        else:
            self._others += (booking,)

    def finish(self, booking: Booking, at_us: Micros) -> None:
        """Forget a booking: it was being worked on until `at_us`."""
        if self._take_out(booking):
            self._busy_until_us = at_us
            self._predict()

    def release(self, booking: Booking) -> None:
        """Forget a booking, if it is here; leaves every other untouched."""
        if self._take_out(booking):
            self._predict()

    def bookings(self) -> tuple[Booking, ...]:
        """Return what is booked, in order of time."""
        return () if self._first is None else (self._first, *self._others)

    def _take_out(self, booking: Booking) -> bool:
        """Forget a booking; return whether it was here."""
        if self._first is booking:
            self._first = self._others[0] if self._others else None
            self._others = self._others[1:]
            return True
        left = tuple([each for each in self._others if each is not booking])
        known = len(left) < len(self._others)
        self._others = left
        return known

    def _predict(self) -> None:
        """Predict anew when the first and the last booking end."""
        if self._first is None:
            self._first_end_us = self.free_us = self._busy_until_us
        else:
            self._first_end_us, self.free_us = self._ends_from(0)

    def _ends_from(self, now_us: Micros) -> tuple[Micros, Micros]:
        """Return when the first and the last booking end, none of them before `now_us`."""
        first = self._first
        if first is None:
            return self._busy_until_us, self._busy_until_us
        first_us = max(self._busy_until_us, first.start_us) + first.end_us - first.start_us
        cursor = first_us = max(first_us, now_us)
        for each in self._others:
            cursor = max(cursor, each.start_us) + each.end_us - each.start_us
        return first_us, cursor

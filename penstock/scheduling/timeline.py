"""The bookings of one instance.

Each is corrected on its own, because a finish that comes early or late says nothing of the others:
a single "busy until" would free the next batch's booking with it.
"""

from __future__ import annotations

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking, place_of


class Timeline:
    """Bookings in order of time.

    Invariant: booked intervals do not overlap; each starts at or after the end of the one before.

    Attributes:
        free_us: when all bookings are done if none overruns: `free_at` is never earlier.
    """

    __slots__ = ("_bookings", "_busy_until_us", "_first_end_us", "free_us")

    def __init__(self) -> None:
        self._bookings: list[Booking] = []  # seldom more than two
        self._busy_until_us: Micros = 0
        self._first_end_us: Micros = 0
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

    def book(self, booking: Booking) -> None:
        """Add a booking after all others, which stay as they are.

        Raises:
            InvariantViolation: it overlaps another booking, is reversed, or is here already.
        """
        bookings, start_us, end_us = self._bookings, booking.start_us, booking.end_us
        last = bookings[-1] if bookings else None
        if end_us < start_us or (last is not None and (start_us < last.end_us or last is booking)):
            raise InvariantViolation(f"{booking} cannot be made: the last one is {last}")
        bookings.append(booking)
        self.free_us = max(self.free_us, start_us) + end_us - start_us
        if last is None:
            self._first_end_us = self.free_us

    def finish(self, booking: Booking, at_us: Micros) -> None:
        """Forget a booking: it was being worked on until `at_us`."""
        place = place_of(booking, self._bookings)
        if place >= 0:
            self._busy_until_us = at_us
            self._forget(place)

    def release(self, booking: Booking) -> None:
        """Forget a booking, if it is here; leaves every other untouched."""
        place = place_of(booking, self._bookings)
        if place >= 0:
            self._forget(place)

    def bookings(self) -> tuple[Booking, ...]:
        """Return what is booked, in order of time."""
        return tuple(self._bookings)

    def _forget(self, place: int) -> None:
        """Forget a booking, and predict anew."""
        del self._bookings[place]
        if self._bookings:
            self._first_end_us, self.free_us = self._ends_from(0)
        else:
            self._first_end_us = self.free_us = self._busy_until_us

    def _ends_from(self, now_us: Micros) -> tuple[Micros, Micros]:
        """Return when the first and the last booking end, none of them before `now_us`."""
        first_us: Micros | None = None
        cursor = self._busy_until_us
        for each in self._bookings:
            cursor = max(cursor, each.start_us) + each.end_us - each.start_us
            if first_us is None:
                cursor = max(cursor, now_us)
                first_us = cursor
        return (cursor if first_us is None else first_us), cursor

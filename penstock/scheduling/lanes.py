"""The transfers booked over one direction of a network card.

Unlike an instance, a card does not work through its bookings in the order in which they were made:
a batch that will leave in 100 ms is booked today, and what leaves before that must not wait for it.
"""

from __future__ import annotations

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking, place_of


class Lane:
    """Transfers in order of time; nobody reports on them, so they end when they were booked to.

    Invariant: booked intervals do not overlap.
    """

    __slots__ = ("_bookings", "_idle_from_us")

    def __init__(self) -> None:
        self._bookings: list[Booking] = []
        self._idle_from_us: Micros = 0  # no booking ends later

    def __len__(self) -> int:
        """Return how many transfers are booked."""
        return len(self._bookings)

    def gap(self, at_us: Micros, length_us: Micros) -> Micros:
        """Return the first instant from `at_us` on from which it is free for so long."""
        if at_us >= self._idle_from_us:
            return at_us
        for each in self._bookings:
            if each.end_us > at_us:
                if at_us + length_us <= each.start_us:
                    return at_us
                at_us = each.end_us
        return at_us

    def book(self, booking: Booking) -> None:
        """Book one transfer.

        Raises:
            InvariantViolation: it overlaps another one, or is reversed.
        """
        bookings = self._bookings
        place = self._place_for(booking)
        overlaps = (place > 0 and bookings[place - 1].end_us > booking.start_us) or (
            place < len(bookings) and bookings[place].start_us < booking.end_us
        )
        if overlaps or booking.end_us < booking.start_us:
            raise InvariantViolation(f"{booking} cannot be made: the lane is not free then")
        bookings.insert(place, booking)
        self._idle_from_us = max(self._idle_from_us, booking.end_us)

    def release(self, booking: Booking) -> bool:
        """Forget one transfer; return whether it was known."""
        place = place_of(booking, self._bookings)
        if place < 0:
            return False
        del self._bookings[place]
        return True

    def expire(self, now_us: Micros) -> None:
        """Forget transfers that have ended."""
        while self._bookings and self._bookings[0].end_us <= now_us:
            del self._bookings[0]

    def bookings(self) -> tuple[Booking, ...]:
        """Return what is booked, in order of time."""
        return tuple(self._bookings)

    def _place_for(self, booking: Booking) -> int:
        """Return how many bookings start no later; most start before."""
        place = len(self._bookings)
        while place and self._bookings[place - 1].start_us > booking.start_us:
            place -= 1
        return place


def gap_in_both(one: Lane, other: Lane, at_us: Micros, length_us: Micros) -> Micros:
    """Return the first instant from `at_us` on from which two lanes are free for so long."""
    while True:
        first_us = one.gap(at_us, length_us)
        at_us = other.gap(first_us, length_us)
        if at_us == first_us:
            return at_us

"""The transfers booked over one direction of a network card.

Unlike an instance, a card does not work through its bookings in the order in which they were made:
a batch that will leave in 100 ms is booked today, and what leaves before that must not wait for it.
"""

from __future__ import annotations

from typing import Final

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking

_NOTHING: Final = Booking(0, 0)


class Lane:
    """Transfers in order of time; nobody reports on them, so they end when they were booked to.

    Invariant: booked intervals do not overlap. The last one is `[_last_us, _idle_from_us)`; it is
    mostly the only one, and an object of its own would be gone from the cache when it is over.
    """

    __slots__ = ("_before", "_idle_from_us", "_last_us")

    def __init__(self) -> None:
        self._before: tuple[Booking, ...] = ()  # all but the last
        self._last_us: Micros = 0
        self._idle_from_us: Micros = 0

    def __len__(self) -> int:
        """Return how many transfers are booked."""
        return len(self.bookings())

    def gap(self, at_us: Micros, length_us: Micros) -> Micros:
        """Return the first instant from `at_us` on from which it is free for so long."""
        if at_us >= self._idle_from_us:
            return at_us
        for each in self._before:
            if each.end_us > at_us:
                if at_us + length_us <= each.start_us:
                    return at_us
                at_us = each.end_us
        return at_us if at_us + length_us <= self._last_us else self._idle_from_us

    def book(self, booking: Booking) -> None:
        """Book one transfer.

        Raises:
            InvariantViolation: it overlaps another one, or takes no time.
        """
        start_us, end_us = booking.start_us, booking.end_us
        if end_us <= start_us:
            raise InvariantViolation(f"{booking} cannot be made: it takes no time")
        if start_us >= self._idle_from_us:
            self._before = self.bookings()
            self._last_us, self._idle_from_us = start_us, end_us
        else:
            self._insert(booking)

    def release(self, booking: Booking) -> bool:
        """Forget one transfer; return whether it was known."""
        known = self.bookings()
        left = [each for each in known if each != booking]
        if len(left) == len(known):
            return False
        last = left.pop() if left else _NOTHING
        self._before = tuple(left)
        self._last_us, self._idle_from_us = last.start_us, last.end_us
        return True

    def expire(self, now_us: Micros) -> None:
        """Forget transfers that have ended."""
        if self._idle_from_us <= now_us:
            self._before = ()
            self._last_us = self._idle_from_us
        elif self._before and self._before[0].end_us <= now_us:
            self._before = tuple([each for each in self._before if each.end_us > now_us])

    def bookings(self) -> tuple[Booking, ...]:
        """Return what is booked, in order of time."""
        if self._last_us == self._idle_from_us:
            return self._before
        return (*self._before, Booking(self._last_us, self._idle_from_us))

    def _insert(self, booking: Booking) -> None:
        """Book a transfer before the last one."""
        place = len(self._before)
        after_us = self._last_us
        while place and self._before[place - 1].start_us > booking.start_us:
            place -= 1
            after_us = self._before[place].start_us
        before_us = self._before[place - 1].end_us if place else booking.start_us
        if booking.start_us < before_us or after_us < booking.end_us:
            raise InvariantViolation(f"{booking} cannot be made: the lane is not free then")
        self._before = (*self._before[:place], booking, *self._before[place:])


def gap_in_both(one: Lane, other: Lane, at_us: Micros, length_us: Micros) -> Micros:
    """Return the first instant from `at_us` on from which two lanes are free for so long."""
    while True:
        first_us = one.gap(at_us, length_us)
        at_us = other.gap(first_us, length_us)
        if at_us == first_us:
            return at_us

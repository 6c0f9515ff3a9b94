"""Intervals of time that are taken: on an instance, or on a network card.

A booking is its own key. Who made it keeps it, and hands it in again to correct or release it; two
of the same times are two bookings.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True)
class Booking:
    """A half-open interval [start_us, end_us)."""

    start_us: Micros
    end_us: Micros


def place_of(booking: Booking, bookings: list[Booking]) -> int:
    """Return where this very booking is among others; -1: it is not."""
    for place, each in enumerate(bookings):
        if each is booking:
            return place
    return -1

"""Intervals of time that are taken: on an instance, or on a network card.

Who made a booking keeps it, and hands it in again to correct or release it. On an instance it is
its own key: two of the same times are two bookings.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True)
class Booking:
    """A half-open interval [start_us, end_us)."""

    start_us: Micros
    end_us: Micros

"""Join the shortest queue: the classical rule for parallel servers (Winston 1977).

Counts batches and knows no times, so a fast pipeline and a slow one look alike. Deliberate
difference: the queue of a pipeline is what is booked on the route it offers, and within a pool the
offer has chosen the instance already (the earliest completion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.policies.routing.queue_length import queue_length
from penstock.scheduling.offers import Offer


@dataclass(frozen=True, slots=True)
class JoinShortestQueue:
    """Ranks offers by the batches booked on their routes; equal ones keep the plan's order."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, shortest queue first."""
        return sorted(offers, key=queue_length)

    def launched(self, offer: Offer) -> None:
        """Learn nothing: bookings are counted anew each time."""

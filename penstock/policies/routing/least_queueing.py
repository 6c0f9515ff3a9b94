"""The pipeline whose offer queues least (PPipe, ATC 2025, §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.scheduling.offers import Offer


@dataclass(frozen=True, slots=True)
class LeastQueueing:
    """Ranks offers by queueing time; equal ones by completion."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, least queueing first."""
        if len(offers) == 1:
            return offers
        return sorted(offers, key=lambda offer: (offer.queueing_us, offer.completion_us))

    def launched(self, offer: Offer) -> None:
        """Learn nothing: bookings already carry what is known."""

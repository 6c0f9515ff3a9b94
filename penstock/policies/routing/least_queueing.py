"""The pipeline whose offer queues least (PPipe, ATC 2025, §5)."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.scheduling.offers import Offer


class LeastQueueing:
    """Ranks offers by queueing time; equal ones by completion."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, least queueing first."""
        return sorted(offers, key=lambda offer: (offer.queueing_us, offer.completion_us))

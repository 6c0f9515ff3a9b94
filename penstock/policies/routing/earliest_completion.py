"""The pipeline that answers first."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.scheduling.offers import Offer


class EarliestCompletion:
    """Ranks offers by completion; equal ones keep the plan's order."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, earliest completion first."""
        return sorted(offers, key=lambda offer: offer.completion_us)

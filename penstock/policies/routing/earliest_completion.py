"""The pipeline that answers first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.scheduling.offers import Offer


@dataclass(frozen=True, slots=True)
class EarliestCompletion:
    """Ranks offers by completion; equal ones keep the plan's order."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, earliest completion first."""
        return sorted(offers, key=lambda offer: offer.completion_us)

    def launched(self, offer: Offer) -> None:
        """Learn nothing: bookings already carry what is known."""

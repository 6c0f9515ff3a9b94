"""How long the queue of an offered route is, in batches: all that counting policies may know."""

from __future__ import annotations

from penstock.scheduling.offers import Offer
from penstock.scheduling.part_offers import OfferedPart


def queue_length(offer: Offer) -> int:
    """Return how many unfinished batches, or parts, are booked on the instances of the route.

    Of a stage that takes the batch in parts, on the instance with the longest queue: the last part
    is what the batch waits for.
    """
    longest: dict[int, int] = {}
    for place, hop in enumerate(offer.hops):
        stage = hop.part.stage if isinstance(hop, OfferedPart) else place
        longest[stage] = max(longest.get(stage, 0), len(hop.instance.timeline))
    return sum(longest.values())

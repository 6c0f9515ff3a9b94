"""How long the queue of an offered route is, in batches: all that counting policies may know."""

from __future__ import annotations

from penstock.scheduling.offers import Offer


def queue_length(offer: Offer) -> int:
    """Return how many unfinished batches are booked on the instances of the route."""
    return sum(len(hop.instance.timeline) for hop in offer.hops)

"""Reservation: launch the largest batch whose booked completion meets the first deadline.

Source: PPipe (ATC 2025, §5). Two deliberate differences, argued in docs/policies.md: a batch is
bound late, just before its first instance is free, and it is held for more requests no longer
than the plan's own batch-building time, where the paper waits until the last possible moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.requests import DropReason
from penstock.domain.units import Micros, ms_from_micros
from penstock.scheduling.offers import Offer
from penstock.scheduling.ports import Decision, Drop, Launch, Outlook, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationPolicy:
    """Books a whole route for a batch, or drops a head that no worthwhile batch can save.

    Attributes:
        min_fill: the smallest batch worth running while enough requests wait, as a fraction
            of the planned one; serving less would cost those behind more than it saves
            (PPipe: 0.95).
        safety: fraction of the head's SLO that a prediction must leave free, for jitter.
        bind_lead_us: how long before its first instance is free a batch is bound.
    """

    min_fill: float = 0.95
    safety: float = 0.05
    bind_lead_us: Micros = 1_000

    def decide(self, outlook: Outlook) -> Decision:
        """Take the first pipeline, in routing order, that can meet the head's deadline."""
        head = outlook.head
        limit_us = head.deadline_us - int(self.safety * (head.deadline_us - head.arrival_us))
        best: Offer | None = None
        for planned in outlook.offers():
            offer = self._largest_in_time(outlook, planned, limit_us)
            if offer is not None:
                return self._launch_or_wait(outlook, offer, limit_us)
            best = best or planned
        over_us = best.completion_us - limit_us if best else 0
        return Drop(
            DropReason.DEADLINE,
            f"the earliest answer would come {ms_from_micros(over_us):.1f} ms too late",
        )

    def observe(self, batch: int, latency_us: Micros, met_deadline: bool) -> None:
        """Learn nothing: bookings already carry what is known."""

    def _largest_in_time(self, outlook: Outlook, planned: Offer, limit_us: Micros) -> Offer | None:
        smallest = max(1, min(outlook.waiting, int(self.min_fill * planned.size)))
        for size in range(planned.size, smallest - 1, -1):
            offer = planned if size == planned.size else outlook.resize(planned, size)
            if offer.completion_us <= limit_us:
                return offer
        return None

    def _launch_or_wait(self, outlook: Outlook, offer: Offer, limit_us: Micros) -> Decision:
        now_us = outlook.now_us
        bind_us = now_us + offer.idle_us - self.bind_lead_us
        if outlook.waiting >= offer.size:
            return Launch(offer, only_in_time=True) if bind_us <= now_us else Wait(bind_us)
        ready = outlook.resize(offer, outlook.waiting)
        larger = outlook.resize(offer, outlook.waiting + 1)
        slack_us = limit_us - larger.completion_us
        held_us = outlook.head.arrival_us + offer.pipeline.plan.batch_build_us
        launch_us = max(min(held_us, now_us + slack_us), bind_us)
        return Launch(ready, only_in_time=True) if launch_us <= now_us else Wait(launch_us)

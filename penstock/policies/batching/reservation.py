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
        min_rate: while enough requests wait, a batch is worth running only if its pipeline
            would sustain this part of the planned throughput with batches of its size. A
            poorer one would save the head at the cost of those behind it. (PPipe asks for
            95 % of the planned size, which small sizes reach only when full.)
        safety: fraction of the head's SLO that a prediction must leave free, for jitter.
        bind_lead: a batch is bound once it would queue, over its whole route, no longer than
            this part of its own work. Queueing at a later stage counts too: until the batch
            would flow, it may as well grow. A little queueing keeps a busy stage fed although
            durations vary.
    """

    min_rate: float = 0.95
    safety: float = 0.05
    bind_lead: float = 0.5

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
        for size in range(planned.size, 0, -1):
            if size < outlook.waiting and planned.pipeline.relative_rate(size) < self.min_rate:
                return None
            offer = planned if size == planned.size else outlook.resize(planned, size)
            if offer.completion_us <= limit_us:
                return offer
        return None

    def _launch_or_wait(self, outlook: Outlook, offer: Offer, limit_us: Micros) -> Decision:
        now_us = outlook.now_us
        work_us = offer.completion_us - now_us - offer.queueing_us
        bind_us = now_us + offer.queueing_us - int(self.bind_lead * work_us)
        if outlook.waiting >= offer.size:
            return Launch(offer, only_in_time=True) if bind_us <= now_us else Wait(bind_us)
        ready = outlook.resize(offer, outlook.waiting)
        larger = outlook.resize(offer, outlook.waiting + 1)
        slack_us = limit_us - larger.completion_us
        held_us = outlook.head.arrival_us + offer.pipeline.plan.batch_build_us
        launch_us = max(min(held_us, now_us + slack_us), bind_us)
        return Launch(ready, only_in_time=True) if launch_us <= now_us else Wait(launch_us)

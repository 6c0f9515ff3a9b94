"""Reservation: launch the largest batch whose booked completion meets the first deadline.

Source: PPipe (ATC 2025, §5). Three deliberate differences, argued in docs/policies.md: a batch is
bound late, just before its first instance is free; while the load allows, it is held for more
requests no longer than the plan's own batch-building time, where the paper waits until the last
possible moment; and it leaves room for the errors that predictions turn out to have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock.domain.requests import DropReason, Request
from penstock.domain.units import Micros, ms_from_micros
from penstock.policies.parameters import Within
from penstock.scheduling.offers import Offer
from penstock.scheduling.ports import NEVER, Decision, Drop, Finished, Launch, Outlook, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationPolicy:
    """Books a whole route for a batch, or drops a head that no worthwhile batch can save.

    Attributes:
        min_rate: while enough requests wait, a batch is worth running only if its pipeline
            would sustain this part of the planned throughput with batches of its size. A
            poorer one would save the head at the cost of those behind it. (PPipe asks for
            95 % of the planned size, which small sizes reach only when full.)
        safety: quantile of the errors of the latest predictions that a batch must survive. 0.95:
            of twenty batches that are cut to the last moment, one is answered late.
        spare: part of the head's SLO kept free instead while errors are unknown, and of any wait
            to the last moment: an event loop does not wake on the microsecond.
        bind_lead: a batch is bound once it would queue, over its whole route, no longer than
            this part of its own work. Queueing at a later stage counts too: until the batch
            would flow, it may as well grow. A little queueing keeps a busy stage fed although
            durations vary.
        calm: with a load below this part of what batches of its size would sustain, a batch is
            held no longer than the plan allows for gathering it; above, up to the last moment at
            which one more sample would make it late.
    """

    min_rate: Annotated[float, Within(most=1)] = 0.95
    safety: Annotated[float, Within(most=1)] = 0.95
    spare: Annotated[float, Within(most=1)] = 0.05
    bind_lead: Annotated[float, Within(most=10)] = 0.5
    calm: Annotated[float, Within(most=10)] = 0.8

    def decide(self, outlook: Outlook) -> Decision:
        """Take the first pipeline, in routing order, that can meet the head's deadline."""
        head = outlook.head
        safe_us = head.deadline_us - self._kept_free_us(outlook, head)
        best = outlook.offers()[0]
        # Room for errors is given up for a head that would be dropped, unless more arrives than can
        # be served: then every head would leave at its last moment, and half of them be late.
        limits = (safe_us, head.deadline_us) if outlook.load <= 1 else (safe_us,)
        for limit_us in limits:
            for planned in outlook.offers():
                offer = self._largest_in_time(outlook, planned, limit_us)
                if offer is not None:
                    return self._launch_or_wait(outlook, offer, limit_us)
        over_us = best.completion_us - limits[-1]
        return Drop(
            DropReason.DEADLINE,
            f"the earliest answer would come {ms_from_micros(over_us):.1f} ms too late",
        )

    def observe(self, finished: Finished) -> None:
        """Learn nothing: the outlook already carries what is known."""

    def _kept_free_us(self, outlook: Outlook, head: Request) -> Micros:
        lateness_us = outlook.lateness_us(self.safety)
        return self._spare_us(head) if lateness_us is None else max(0, lateness_us)

    def _spare_us(self, head: Request) -> Micros:
        return int(self.spare * (head.deadline_us - head.arrival_us))

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
        bind_us = now_us + offer.queueing_us - int(self.bind_lead * offer.work_us)
        if outlook.waiting >= offer.size:
            if bind_us <= now_us:
                return Launch(offer, only_in_time=True)
            return Wait(bind_us, enough=NEVER)
        built_us = self._built_us(outlook, offer)
        # Until the deadline of a full batch would be at stake, one more request changes nothing.
        full_us = max(self._due_us(outlook, offer, offer.size, limit_us, built_us), bind_us)
        if full_us > now_us:
            return Wait(full_us, enough=offer.size)
        due_us = max(self._due_us(outlook, offer, outlook.waiting + 1, limit_us, built_us), bind_us)
        if due_us > now_us:
            return Wait(due_us)
        return Launch(outlook.resize(offer, outlook.waiting), only_in_time=True)

    def _built_us(self, outlook: Outlook, offer: Offer) -> Micros | None:
        """Return until when the plan has a batch gathered; None: too much arrives for that."""
        if outlook.load > self.calm * offer.pipeline.relative_rate(outlook.waiting):
            return None
        return outlook.head.arrival_us + _build_us(outlook, offer)

    def _due_us(
        self, outlook: Outlook, offer: Offer, size: int, limit_us: Micros, built_us: Micros | None
    ) -> Micros:
        """Return until when a batch may be held that would then have `size` samples."""
        if built_us is not None and built_us <= outlook.now_us:
            return built_us  # whatever deadlines would allow
        last_us = outlook.now_us + limit_us - outlook.resize(offer, size).completion_us
        if built_us is None:
            return last_us - self._spare_us(outlook.head)
        return min(last_us, built_us)


def _build_us(outlook: Outlook, offer: Offer) -> Micros:
    """Return how long a batch may be gathered by the plan.

    Where a stage runs it in parts, the plan takes it that early parts run while the last samples
    are still awaited. They are launched together here, so what they take beyond the planned latency
    is taken off.
    """
    pipeline = offer.pipeline
    build_us = pipeline.plan.batch_build_us
    if pipeline.uncut == pipeline.batch:
        return build_us
    work_us = outlook.resize(offer, pipeline.batch).work_us
    return max(0, min(build_us, pipeline.plan.latency_us - work_us))

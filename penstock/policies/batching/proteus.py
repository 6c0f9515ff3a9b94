"""Proteus' batching: wait until the last moment at which one more request would still be in time.

Source: Proteus (ASPLOS 2024, adaptive batching; the drop rule of its simulator). With q requests
queued and the head's deadline Texp(1), a free device stays idle until

    Tmax_wait(q + 1) = Texp(1) - Tproc(q + 1)

and then runs the q. An arrival before that instant moves it; b_max queued requests run at once. A
head that would be late in a batch of all that is queued is dropped.

Deliberate differences, argued in docs/policies.md: Tproc is the work of a whole route; b_max is the
planned batch; any size is allowed, not powers of two alone; every pipeline is tried before a drop.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.units import Micros
from penstock.policies.batching.shared import expired, first_in_time, until_free, wait_or_drop
from penstock.scheduling.offers import Offer
from penstock.scheduling.ports import Decision, Finished, Launch, Outlook, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class ProteusPolicy:
    """Holds a batch as long as the head's deadline allows one more sample in it.

    Attributes:
        safety_us: time that predictions must leave before the deadline, in microseconds. Proteus
            has none; clocks that are not simulated need some.
    """

    safety_us: Micros = 0

    def decide(self, outlook: Outlook) -> Decision:
        """Take the first pipeline, in routing order, that runs all that is queued in time."""
        if drop := expired(outlook):
            return drop
        limit_us = outlook.head.deadline_us - self.safety_us
        offer = first_in_time(outlook, limit_us)
        if offer is None:
            return wait_or_drop(outlook)
        return until_free(outlook, offer) or self._hold(outlook, offer, limit_us)

    def observe(self, finished: Finished) -> None:
        """Learn nothing: latencies are the plan's."""

    def _hold(self, outlook: Outlook, offer: Offer, limit_us: Micros) -> Decision:
        if offer.size < offer.pipeline.batch:
            larger = outlook.resize(offer, offer.size + 1)
            last_us = outlook.now_us + limit_us - larger.completion_us
            if last_us > outlook.now_us:
                return Wait(last_us)
        return Launch(offer, only_in_time=True)

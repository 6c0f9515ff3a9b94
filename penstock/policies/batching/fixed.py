"""Fixed size with a timeout, as most serving systems batch; knows of no deadline but a past one."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.requests import DropReason
from penstock.domain.units import Micros
from penstock.scheduling.ports import Decision, Drop, Launch, Outlook, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """Launches when `size` samples wait, or the oldest has waited for `timeout_us`.

    The batch stays open while its first instance is busy.

    Attributes:
        size: None for the planned batch.
    """

    size: int | None = None
    timeout_us: Micros = 5_000

    def decide(self, outlook: Outlook) -> Decision:
        """Launch a full batch, or what there is once the timeout has passed."""
        now_us = outlook.now_us
        if outlook.head.deadline_us <= now_us:
            return Drop(DropReason.DEADLINE, "the deadline passed in the queue")
        offer = outlook.offers()[0]
        full = min(self.size or offer.size, offer.size)
        if offer.idle_us > 0:
            return Wait(now_us + offer.idle_us)
        due_us = outlook.head.arrival_us + self.timeout_us
        if outlook.waiting < full and now_us < due_us:
            return Wait(min(due_us, outlook.head.deadline_us))
        return Launch(outlook.resize(offer, min(full, outlook.waiting)))

    def observe(self, batch: int, latency_us: Micros, met_deadline: bool) -> None:
        """Learn nothing: the size is fixed."""

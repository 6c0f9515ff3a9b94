"""Fixed size with a timeout, as most serving systems batch; knows of no deadline but a past one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock.domain.units import Micros
from penstock.policies.batching.shared import expired, until_due, until_free, window
from penstock.policies.parameters import Within
from penstock.scheduling.ports import Decision, Finished, Launch, Outlook


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPolicy:
    """Launches when `size` samples wait, or the oldest has waited for `timeout_us`.

    The batch stays open while its route is busy.

    Attributes:
        size: samples of a full batch; at most the planned batch, which None stands for.
        timeout_us: time after which a batch that is not full is launched, in microseconds.
    """

    size: Annotated[int | None, Within(least=1)] = None
    timeout_us: Micros = 5_000

    def decide(self, outlook: Outlook) -> Decision:
        """Launch a full batch, or what there is once the timeout has passed."""
        if drop := expired(outlook):
            return drop
        planned = outlook.offers()[0]
        full = min(self.size or planned.size, planned.size)
        offer = window(outlook, planned, full)
        if wait := until_free(outlook, offer):
            return wait
        if offer.size < full and (wait := until_due(outlook, full, self.timeout_us)):
            return wait
        return Launch(offer)

    def observe(self, finished: Finished) -> None:
        """Learn nothing: the size is fixed."""

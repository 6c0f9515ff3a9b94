"""Nexus' early drop: a batch as planned, and no request that such a batch would answer too late.

Source: Nexus (SOSP 2019, §4.3 and §6.3, early drop; the drop rule of its backend). When the device
is free, a window of the planned batch slides over the queue, earliest deadline first. It stops at
the first request whose time left suffices for the whole window; the requests before it are
dropped. With fewer requests than a batch, the window is as long as the queue: nothing waits for a
batch to fill.

Lazy dropping, its opposite, would run the head in whatever batch still fits, and pay for each
saved request with several behind it.

Deliberate differences, argued in docs/policies.md: the window is timed by the offer of a whole
route; a request is dropped only if no pipeline could run its window in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from penstock.policies.batching.shared import expired, first_in_time, until_free, wait_or_drop
from penstock.policies.parameters import Within
from penstock.scheduling.ports import Decision, Finished, Launch, Outlook


@dataclass(frozen=True, slots=True, kw_only=True)
class NexusPolicy:
    """Runs the window at the front of the queue, or drops the head.

    Attributes:
        size: samples of the window; at most the planned batch, which None stands for.
    """

    size: Annotated[int | None, Within(least=1)] = None

    def decide(self, outlook: Outlook) -> Decision:
        """Take the first pipeline, in routing order, that runs the whole window in time."""
        if drop := expired(outlook):
            return drop
        offer = first_in_time(outlook, outlook.head.deadline_us, self.size)
        if offer is None:
            return wait_or_drop(outlook, self.size)
        return until_free(outlook, offer) or Launch(offer, only_in_time=True)

    def observe(self, finished: Finished) -> None:
        """Learn nothing: the size is the planner's."""

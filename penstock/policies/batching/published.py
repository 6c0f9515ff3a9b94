"""PPipe's published rule: book the whole route for a batch at once, as soon as there is one.

Source: PPipe (ATC 2025, §5) and its published simulator, as described in docs/policies.md. The
pipeline whose planned batch would queue least is the only one looked at; a batch is bound when it
is booked, even if its first GPU is busy for a while; with too few requests it waits until one more
would make the batch late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from penstock.domain.requests import DropReason
from penstock.domain.units import Micros, ms_from_micros
from penstock.policies.parameters import Within
from penstock.scheduling.offers import Offer
from penstock.scheduling.ports import Decision, Drop, Finished, Launch, Outlook, Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPolicy:
    """Drops a head that no batch near the planned size can save; else books the largest that can.

    Attributes:
        worthwhile: part of the planned batch that must be answered in time, or the head is
            dropped.
    """

    worthwhile: Annotated[float, Within(most=1)] = 0.95

    def decide(self, outlook: Outlook) -> Decision:
        """Look at the first pipeline in routing order only."""
        planned = outlook.offers()[0]
        deadline_us = outlook.head.deadline_us
        offer = self._largest_in_time(outlook, planned, deadline_us)
        if offer is None:
            over_us = planned.completion_us - deadline_us
            detail = f"the planned batch would be {ms_from_micros(over_us):.1f} ms too late"
            return Drop(DropReason.DEADLINE, detail)
        if outlook.waiting >= offer.size:
            return Launch(offer)
        # While a full batch would be in time, one more request changes nothing.
        for size, enough in ((offer.size, offer.size), (outlook.waiting + 1, 0)):
            slack_us = deadline_us - outlook.resize(planned, size).completion_us
            if slack_us > 0:
                return Wait(outlook.now_us + slack_us, enough)
        return Launch(outlook.resize(planned, outlook.waiting))

    def observe(self, finished: Finished) -> None:
        """Learn nothing."""

    def _largest_in_time(
        self, outlook: Outlook, planned: Offer, deadline_us: Micros
    ) -> Offer | None:
        least = max(1, math.ceil(self.worthwhile * planned.size))
        for size in range(planned.size, least - 1, -1):
            offer = outlook.resize(planned, size)
            if offer.completion_us <= deadline_us:
                return offer
        return None

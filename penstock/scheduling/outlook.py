"""The read-only view a batching policy decides from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from penstock.domain.requests import Request
from penstock.domain.units import Micros
from penstock.scheduling.estimator import PredictionErrors
from penstock.scheduling.instances import LivePipeline
from penstock.scheduling.offers import Offer, make_offer
from penstock.scheduling.ports import RoutingPolicy
from penstock.scheduling.waiting import Queued


class QueueOutlook:
    """One model's queue at one instant. Offers are computed when asked for, once."""

    def __init__(
        self,
        *,
        now_us: Micros,
        head: Request,
        waiting: int,
        queued: Callable[[], Iterator[Queued]],
        pipelines: Sequence[LivePipeline],
        routing: RoutingPolicy,
        hop_us: Micros,
        errors: PredictionErrors,
        load: float,
    ) -> None:
        self.now_us = now_us
        self.head = head
        self.waiting = waiting
        self.queued = queued
        self.load = load
        self._pipelines = pipelines
        self._routing = routing
        self._hop_us = hop_us
        self._errors = errors
        self._offers: Sequence[Offer] | None = None

    def offers(self) -> Sequence[Offer]:
        """Return each pipeline's offer for its planned batch, best first."""
        if self._offers is None:
            self._offers = self._routing.rank(
                [
                    make_offer(each, each.batch, self.now_us, self._hop_us)
                    for each in self._pipelines
                ]
            )
        return self._offers

    def resize(self, offer: Offer, size: int) -> Offer:
        """Return the same pipeline's offer for another batch size."""
        if size == offer.size:
            return offer
        return make_offer(offer.pipeline, size, self.now_us, self._hop_us)

    def lateness_us(self, quantile: float) -> Micros | None:
        """Return how much later than predicted batches were answered of late, at a quantile."""
        return self._errors.quantile_us(quantile)

"""Round robin: pipelines in turn, by batches.

The baseline that knows nothing of load. `weighted` is the smooth weighted form, as nginx balances
requests: each pipeline earns credit at its planned rate, and the richest is next.

Deliberate difference: requests wait in one queue and not at a pipeline, so a turn is a batch; it
passes when a batch is launched, not when it is considered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.domain.ids import PipelineId
from penstock.scheduling.offers import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRobin:
    """Ranks offers by whose turn is next.

    Attributes:
        weighted: give turns in proportion to the planned throughput, counted in samples;
            otherwise one batch each.
    """

    weighted: bool = False
    _weights: dict[PipelineId, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _credit: dict[PipelineId, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, the one with the most credit first."""
        self._weights.clear()
        for each in offers:
            self._weights[each.pipeline.id] = self._weight(each)
        return sorted(offers, key=self._claim, reverse=True)

    def launched(self, offer: Offer) -> None:
        """Let every pipeline earn its part of this turn, and the chosen one pay for it."""
        price = offer.size if self.weighted else 1
        for pipeline, weight in self._weights.items():
            self._credit[pipeline] = self._credit.get(pipeline, 0.0) + price * weight
        self._credit[offer.pipeline.id] -= price * sum(self._weights.values(), 0.0)

    def _claim(self, offer: Offer) -> float:
        pipeline = offer.pipeline.id
        return self._credit.get(pipeline, 0.0) + self._weights[pipeline]

    def _weight(self, offer: Offer) -> float:
        return offer.pipeline.plan.throughput_rps if self.weighted else 1.0

"""Clipper's adaptive batching: the largest batch grows by steps and backs off by a tenth.

Source: Clipper (NSDI 2017, §4.3.1, the additive-increase-multiplicative-decrease scheme, and
§4.3.2, delayed batching). The paper gives the back-off of 10 %; the step of 2 and the dead band
of 10 % of the objective are those of its authors' prototype. A free instance takes whatever is
queued, up to the cap: no batch waits to be full unless `delay_us` says so.

Deliberate differences, argued in docs/policies.md: one cap for each pipeline, where Clipper keeps
one for each container; the cap never exceeds the planned batch; only a batch that reached
the cap raises it; the queue is ordered by deadline, and an expired request is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from penstock.domain.ids import PipelineId
from penstock.domain.units import Micros
from penstock.policies.batching.shared import expired, until_due, until_free, window
from penstock.policies.parameters import Within
from penstock.scheduling.ports import Decision, Finished, Launch, Outlook


@dataclass(slots=True)
class _Learned:
    """The cap of one pipeline as it stands, and the SLO its last batch was launched under."""

    cap: int = 1
    slo_us: Micros = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AimdPolicy:
    """Runs what is queued, up to a cap that the latency of batches moves.

    Attributes:
        step: samples added to the cap by a full batch that was quick enough.
        backoff: factor on the size of a batch that took the objective or longer.
        dead_band: part of the objective below it in which the cap stays as it is.
        objective_us: allowed latency of a batch, from launch to answer, in microseconds; None
            for the SLO of the request at its head.
        delay_us: how long a batch below the cap is held for more samples, in microseconds.
    """

    step: Annotated[int, Within(least=1)] = 2
    backoff: Annotated[float, Within(most=1)] = 0.9
    dead_band: Annotated[float, Within(most=1)] = 0.1
    objective_us: Annotated[int | None, Within(least=1)] = None
    delay_us: Micros = 0
    _learned: dict[PipelineId, _Learned] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def cap(self, pipeline: PipelineId) -> int:
        """Return the largest batch it would launch on a pipeline, as far as the plan allows."""
        return self._of(pipeline).cap

    def decide(self, outlook: Outlook) -> Decision:
        """Launch what is queued, up to the cap, once its route is free."""
        if drop := expired(outlook):
            return drop
        planned = outlook.offers()[0]
        learned = self._of(planned.pipeline.id)
        full = min(learned.cap, planned.size)
        offer = window(outlook, planned, full)
        if wait := until_free(outlook, offer):
            return wait
        if offer.size < full and (wait := until_due(outlook, full, self.delay_us)):
            return wait
        learned.slo_us = outlook.head.deadline_us - outlook.head.arrival_us
        return Launch(offer)

    def observe(self, finished: Finished) -> None:
        """Raise the cap after a full batch well within the objective; lower it after a slow one."""
        learned = self._of(finished.pipeline)
        objective_us = self.objective_us or learned.slo_us
        if finished.latency_us >= objective_us:
            learned.cap = max(1, min(learned.cap, int(finished.size * self.backoff)))
        elif (
            finished.latency_us < (1 - self.dead_band) * objective_us
            and finished.size >= learned.cap
        ):
            learned.cap += self.step

    def _of(self, pipeline: PipelineId) -> _Learned:
        return self._learned.setdefault(pipeline, _Learned())

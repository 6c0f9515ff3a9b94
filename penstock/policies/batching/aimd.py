"""Clipper's adaptive batching: the largest batch grows by steps and backs off by a tenth.

Source: Clipper (NSDI 2017, §4.3.1, the additive-increase-multiplicative-decrease scheme, and
§4.3.2, delayed batching). The paper gives the back-off of 10 %; the step of 2 and the dead band
of 10 % of the objective are those of its authors' prototype. A free instance takes whatever is
queued, up to the cap: no batch waits to be full unless `delay_us` says so.

Deliberate differences, argued in docs/policies.md: one cap for the whole model, where Clipper
keeps one for each container; the cap never exceeds the planned batch; only a batch that reached
the cap raises it; the queue is ordered by deadline, and an expired request is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from penstock.domain.units import Micros
from penstock.policies.batching.shared import expired, until_due, until_free, window
from penstock.policies.parameters import Within
from penstock.scheduling.ports import Decision, Launch, Outlook


@dataclass(slots=True)
class _Learned:
    """The cap as it stands, and the SLO that the last batch was launched under."""

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
    _learned: _Learned = field(default_factory=_Learned, init=False, repr=False, compare=False)

    @property
    def cap(self) -> int:
        """Largest batch it would launch now, as far as the plan allows."""
        return self._learned.cap

    def decide(self, outlook: Outlook) -> Decision:
        """Launch what is queued, up to the cap, once its route is free."""
        if drop := expired(outlook):
            return drop
        planned = outlook.offers()[0]
        full = min(self._learned.cap, planned.size)
        offer = window(outlook, planned, full)
        if wait := until_free(outlook, offer):
            return wait
        if offer.size < full and (wait := until_due(outlook, full, self.delay_us)):
            return wait
        self._learned.slo_us = outlook.head.deadline_us - outlook.head.arrival_us
        return Launch(offer)

    def observe(self, batch: int, latency_us: Micros, met_deadline: bool) -> None:  # noqa: ARG002 # port's
        """Raise the cap after a full batch well within the objective; lower it after a slow one."""
        learned = self._learned
        objective_us = self.objective_us or learned.slo_us
        if latency_us >= objective_us:
            learned.cap = max(1, min(learned.cap, int(batch * self.backoff)))
        elif latency_us < (1 - self.dead_band) * objective_us and batch >= learned.cap:
            learned.cap += self.step

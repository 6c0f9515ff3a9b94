"""One model as it is served: what waits, where it may run, and what its policy waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.domain.ids import PoolId
from penstock.domain.plan import ModelPlan
from penstock.domain.requests import Request
from penstock.domain.units import Micros
from penstock.scheduling.estimator import ArrivalRate, PredictionErrors
from penstock.scheduling.instances import LivePipeline, LivePool, capacity
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy, Wait
from penstock.scheduling.waiting import WaitingQueue


@dataclass(slots=True, eq=False)
class ServedQueue:
    """One model's waiting samples, pools, pipelines and policies.

    Attributes:
        errors: of the predictions made for it.
        arrivals: how many samples come.
        wake_us: when it has to be looked at again.
    """

    plan: ModelPlan
    pools: dict[PoolId, LivePool]
    pipelines: tuple[LivePipeline, ...]
    waiting: WaitingQueue
    batching: BatchingPolicy
    routing: RoutingPolicy
    errors: PredictionErrors = field(default_factory=PredictionErrors)
    arrivals: ArrivalRate = field(default_factory=ArrivalRate)
    wake_us: Micros | None = None
    _enough: int = 0
    _held: Request | None = None
    _routes: Sequence[LivePipeline] | None = None
    _capacity: float = 0.0

    def routes(self) -> Sequence[LivePipeline]:
        """Return the pipelines that can run a batch now."""
        if self._routes is None:
            self._routes = [each for each in self.pipelines if each.has_route()]
            self._capacity = capacity(self._routes)
        return self._routes

    def load(self) -> float:
        """Return how much arrives, as a part of what the pipelines get through."""
        return self.arrivals.per_us / self._capacity if self._capacity else 0.0

    def hold(self, wait: Wait) -> None:
        """Remember what the policy waits for."""
        self.wake_us = wait.until_us
        self._enough = wait.enough
        self._held = self.waiting.head()

    def let_go(self) -> None:
        """Forget what the policy waited for."""
        self.wake_us = None
        self._enough = 0

    def holds(self, now_us: Micros) -> bool:
        """Return whether what was decided last still stands, as far as the queue can tell."""
        return (
            self.waiting.samples < self._enough
            and (self.wake_us is None or now_us < self.wake_us)
            and self.waiting.head() is self._held
        )

    def fleet_changed(self) -> None:
        """Look at the pipelines anew: an instance joined or left."""
        self._routes = None

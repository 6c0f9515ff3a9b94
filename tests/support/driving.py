"""A dispatcher in a world that does exactly as booked: what is launched, and when, by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from penstock.domain.plan import Plan
from penstock.policies.routing.least_queueing import LeastQueueing
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import CompleteRequest, DropRequest, RunBatch, WakeAt
from penstock.scheduling.events import (
    BatchFinished,
    Event,
    PlanApplied,
    RequestArrived,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy
from tests.support.builders import a_request, all_joined


class Drive:
    """Feeds arrivals, and the finishes and wake-ups that follow from the dispatcher's effects.

    Attributes:
        launches: (instant, samples) of each batch, instants in microseconds.
        pipelines: where each batch went.
        drops: (instant, number) of each dropped request.
        in_time: numbers of the requests answered in time; late: of the others answered.
    """

    def __init__(
        self,
        plan: Plan,
        batching: Callable[[], BatchingPolicy],
        routing: Callable[[], RoutingPolicy] = LeastQueueing,
    ) -> None:
        self.launches: list[tuple[int, int]] = []
        self.pipelines: list[str] = []
        self.drops: list[tuple[int, int]] = []
        self.in_time: list[int] = []
        self.late: list[int] = []
        self.now_us = 0
        self._dispatcher = Dispatcher(batching, routing)
        self._pending: list[tuple[int, int, Event]] = []
        self._order = count()
        self._number = count()
        self._feed(PlanApplied(plan))
        for joined in all_joined(plan):
            self._feed(joined)

    @property
    def sizes(self) -> list[int]:
        """Samples of each batch."""
        return [size for _, size in self.launches]

    def arrive(self, at_us: int, requests: int = 1, *, slo_us: int = 100_000) -> None:
        """Let requests of one sample arrive, after all that happens up to that instant."""
        self.until(at_us)
        for _ in range(requests):
            request = a_request(next(self._number), arrival_us=at_us, slo_us=slo_us)
            self._feed(RequestArrived(request))

    def until(self, at_us: int) -> None:
        """Let everything happen that is due up to that instant."""
        while self._pending and self._pending[0][0] <= at_us:
            self.now_us, _, event = heapq.heappop(self._pending)
            self._feed(event)
        self.now_us = at_us

    def _feed(self, event: Event) -> None:
        for effect in self._dispatcher.handle(self.now_us, event):
            match effect:
                case RunBatch():
                    self._run(effect)
                case WakeAt(at_us):
                    self._later(at_us, WakeUp())
                case DropRequest(request):
                    self.drops.append((self.now_us, request))
                case CompleteRequest(request, met):
                    (self.in_time if met else self.late).append(request)

    def _run(self, effect: RunBatch) -> None:
        self.launches.append((self.now_us, sum(each.count for each in effect.slices)))
        self.pipelines.append(effect.pipeline)
        # Before the last stage's report, which is as late: the answer is known when it is free.
        self._later(effect.completion_us, BatchFinished(effect.batch))
        for stage, hop in enumerate(effect.route):
            compute_us = hop.end_us - hop.start_us
            finished = StageFinished(batch=effect.batch, stage=stage, compute_us=compute_us)
            self._later(hop.end_us, finished)

    def _later(self, at_us: int, event: Event) -> None:
        heapq.heappush(self._pending, (at_us, next(self._order), event))


def linear(size: int, *, fixed_us: int, each_us: int) -> list[int]:
    """Return latencies of batches 1 to `size` that grow by `each_us` per sample."""
    return [fixed_us + each_us * batch for batch in range(1, size + 1)]

"""A dispatcher in a world full of mishaps, the same ones for the same seed, and its run log."""

from __future__ import annotations

import heapq
import random
from itertools import count
from typing import assert_never

from penstock import __version__
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.plan import Plan
from penstock.formats.runlog import write_entry
from penstock.formats.runlog_header import LogHeader, spelled, write_header
from penstock.policies import batching_policy, routing_policy
from penstock.scheduling.dispatcher import Dispatcher, DispatcherLimits
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    RequestCancelled,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.machine import Machine
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request, all_joined


def a_header(
    policy: str = "reservation",
    routing: str = "least-queueing",
    limits: DispatcherLimits | None = None,
    *,
    simulated: bool = True,
) -> LogHeader:
    """Return what a log of these policies begins with."""
    return LogHeader(
        penstock=__version__,
        simulated=simulated,
        policy=spelled(policy, batching_policy(policy)()),
        routing=spelled(routing, routing_policy(routing)()),
        limits=limits or DispatcherLimits(),
    )


def dispatcher_of(header: LogHeader) -> Dispatcher:
    """Return the dispatcher that a log tells of, new."""
    return Dispatcher(batching_policy(header.policy), routing_policy(header.routing), header.limits)


class Recorder:
    """A machine that keeps a log of another; its lines are as a frontend writes them."""

    def __init__(self, machine: Machine[Event, Effect], header: LogHeader | None) -> None:
        self.lines: list[str] = [] if header is None else [write_header(header)]
        self._machine = machine

    def handle(self, now_us: int, event: Event) -> list[Effect]:
        effects = list(self._machine.handle(now_us, event))
        self.lines.append(write_entry(now_us, event, effects))
        return effects


def a_two_model_plan() -> Plan:
    """Two models; the first has two pipelines of two stages, the second one of one."""
    routes = [
        [
            a_pool(f"{line}.0", latencies_us=(4_000, 6_000, 7_500), instances=2),
            a_pool(
                f"{line}.1",
                position=1,
                blocks=(1, 2),
                gpu_class="slow",
                latencies_us=(5_000, 7_000, 9_000),
                instances=2,
            ),
        ]
        for line in range(2)
    ]
    alone = [a_pool("alone", latencies_us=(3_000, 4_000), instances=2)]
    return a_plan(
        a_model_plan(*routes, transfer_us=300, batch_build_us=3_000),
        a_model_plan(alone, model=ModelName("n"), slo_us=40_000),
        hop_us=200,
    )


class Mishaps:
    """Requests at random; batches that take a little longer, fail or hang; instances that go."""

    def __init__(self, plan: Plan, recorder: Recorder, seed: int, wake_late_us: int) -> None:
        self._wake_late_us = wake_late_us
        self._plan = plan
        self._recorder = recorder
        self._dice = random.Random(seed)
        self._due: list[tuple[int, int, Event]] = []
        self._order = count()
        self._flying: set[BatchId] = set()
        self._open: set[RequestId] = set()
        self._up: dict[InstanceId, InstanceJoined] = {}
        self._wake_us: int | None = None
        self.now_us = 0

    def run(self, requests: int) -> None:
        """Serve so many requests, then everything that is due."""
        self._apply()
        for number in range(requests):
            self._until(self.now_us + self._dice.randrange(4_000))
            self._mishap()
            model = self._dice.choice(self._plan.models)
            request = a_request(
                number,
                arrival_us=self.now_us,
                slo_us=self._dice.choice([model.slo_us, 15_000]),
                samples=self._dice.choice([1, 1, 1, 4]),
                model=model.model,
                priority=self._dice.choice([0, 0, 1]),
            )
            self._open.add(request.id)
            self._feed(RequestArrived(request))
        self._until(self.now_us + 10_000_000)

    def _mishap(self) -> None:
        match self._dice.randrange(60):
            case 0 if self._up:
                lost = self._up.pop(self._dice.choice(sorted(self._up)))
                self._later(self.now_us + 30_000, lost)
                self._feed(InstanceLost(lost.instance))
            case 1 | 2 if self._open:
                self._feed(RequestCancelled(self._dice.choice(sorted(self._open))))
            case 3 if self._dice.random() < 0.3:
                self._apply()

    def _apply(self) -> None:
        self._feed(PlanApplied(self._plan))
        for each in all_joined(self._plan, servers=3):
            self._up[each.instance] = each
            self._feed(each)

    def _until(self, at_us: int) -> None:
        while True:
            wake_us = at_us + 1 if self._wake_us is None else self._wake_us
            due_us = self._due[0][0] if self._due else at_us + 1
            if min(wake_us, due_us) > at_us:
                break
            self.now_us = max(self.now_us, min(wake_us, due_us))
            if wake_us <= due_us:
                self._wake_us = None
                self._feed(WakeUp())
            else:
                self._happen(heapq.heappop(self._due)[2])
        self.now_us = at_us

    def _happen(self, event: Event) -> None:
        match event:
            case StageFinished() | BatchFinished() | BatchFailed():
                if event.batch not in self._flying:
                    return
                if not isinstance(event, StageFinished):
                    self._flying.discard(event.batch)
            case InstanceJoined():
                self._up[event.instance] = event
            case _:
                pass
        self._feed(event)

    def _feed(self, event: Event) -> None:
        for effect in self._recorder.handle(self.now_us, event):
            match effect:
                case RunBatch():
                    self._fly(effect)
                case CancelBatch(batch):
                    self._flying.discard(batch)
                case CompleteRequest(request) | DropRequest(request):
                    self._open.discard(request)
                case WakeAt(at_us):
                    self._wake_us = at_us + self._wake_late_us
                case _:
                    assert_never(effect)

    def _fly(self, run: RunBatch) -> None:
        self._flying.add(run.batch)
        fate = self._dice.random()
        if fate < 0.01:
            return  # nothing is ever heard of it
        if fate < 0.05:
            failed = BatchFailed(batch=run.batch, detail="boom", retriable=fate < 0.03)
            self._later(run.route[0].end_us, failed)
            return
        late_us = self._dice.randrange(2_000)
        for stage, hop in enumerate(run.route):
            compute_us = hop.end_us - hop.start_us + late_us
            finished = StageFinished(batch=run.batch, stage=stage, compute_us=compute_us)
            self._later(hop.end_us + late_us, finished)
        self._later(run.completion_us + late_us, BatchFinished(run.batch))

    def _later(self, at_us: int, event: Event) -> None:
        heapq.heappush(self._due, (at_us, next(self._order), event))


def a_log_of_mishaps(
    header: LogHeader, *, requests: int = 400, seed: int = 0, wake_late_us: int = 0
) -> list[str]:
    """Return the lines of a log in which about everything happens.

    Args:
        wake_late_us: how late the dispatcher is woken, as by a real timer.
    """
    recorder = Recorder(dispatcher_of(header), header)
    Mishaps(a_two_model_plan(), recorder, seed, wake_late_us).run(requests)
    return recorder.lines

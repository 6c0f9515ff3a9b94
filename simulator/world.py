"""Workers and links that exist only in the heap: performs the dispatcher's effects.

The dispatcher and the stage runners are the very objects that serve live.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from penstock.domain.ids import BatchId, InstanceId, RequestId, ServerId
from penstock.domain.outcomes import Interval, Outcome
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import Pipeline, Plan, Pool
from penstock.domain.requests import Request
from penstock.domain.units import Micros
from penstock.scheduling.dispatcher import Dispatcher
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
    PlanApplied,
    RequestArrived,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.stage_runner import (
    Abandon,
    BatchArrived,
    BatchCancelled,
    Compute,
    ComputeFinished,
    RunnerEvent,
    RunnerWakeAt,
    RunnerWakeUp,
    StageRunner,
)
from simulator.engine import Engine
from simulator.noise import LogNormalJitter


@dataclass(slots=True, eq=False)
class _Card:
    """When each direction of a server's network card is free."""

    up_us: Micros = 0
    down_us: Micros = 0


@dataclass(slots=True, eq=False)
class _SimulatedInstance:
    id: InstanceId
    pool: Pool
    server: ServerId
    card: _Card
    runner: StageRunner = field(default_factory=StageRunner)


@dataclass(slots=True, eq=False)
class _Travel:
    """A batch on its way through the simulated fleet."""

    run: RunBatch
    pipeline: Pipeline
    samples: int
    stage: int = 0


class World:
    """A fleet that runs a plan.

    Attributes:
        outcomes: of the requests that have ended, in order of their end.
        intervals: what each instance computed.
    """

    def __init__(
        self,
        plan: Plan,
        dispatcher: Dispatcher,
        engine: Engine,
        jitter: LogNormalJitter,
        most_misses: int | None = None,
    ) -> None:
        """Get ready.

        Args:
            plan: what is run.
            dispatcher: that runs it; new.
            engine: of the simulated time.
            jitter: of compute times.
            most_misses: requests that may miss their SLO; with one more the run ends.
        """
        self._misses_left = most_misses
        self.outcomes: list[Outcome] = []
        self.intervals: list[Interval] = []
        self._plan = plan
        self._dispatcher = dispatcher
        self._engine = engine
        self._jitter = jitter
        self._hop_us = plan.hop_overhead_us
        self._instances: dict[InstanceId, _SimulatedInstance] = {}
        self._pipelines = {
            (model.model, each.id): each for model in plan.models for each in model.pipelines
        }
        self._travels: dict[BatchId, _Travel] = {}
        self._open: dict[RequestId, Request] = {}
        self._wake = 0

    def start(self) -> None:
        """Apply the plan and let every planned instance join, now.

        Raises:
            InvalidPlan: the dispatcher cannot serve it.
        """
        self._post(PlanApplied(self._plan))
        for event in _joined(self._plan):
            pool = self._plan.model(event.model).pool(event.pool)
            card = self._card_of(event.server)
            self._instances[event.instance] = _SimulatedInstance(
                event.instance, pool, event.server, card
            )
            self._post(event)

    def offer(self, requests: Iterable[Request]) -> None:
        """Let each request arrive at its own instant."""
        for request in requests:
            self._engine.at(request.arrival_us, partial(self._arrive, request))

    def _arrive(self, request: Request) -> None:
        self._open[request.id] = request
        self._post(RequestArrived(request))

    def _card_of(self, server: ServerId) -> _Card:
        for instance in self._instances.values():
            if instance.server == server:
                return instance.card
        return _Card()

    def _post(self, event: Event) -> None:
        for effect in self._dispatcher.handle(self._engine.now_us, event):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case RunBatch():
                self._send(effect)
            case CompleteRequest(request):
                self._end(request, "")
            case DropRequest(request, reason):
                self._end(request, reason.value)
            case CancelBatch(batch, instances):
                for each in instances:
                    self._run(self._instances[each], BatchCancelled(batch))
            case WakeAt(at_us):
                self._wake += 1
                self._engine.at(at_us, partial(self._wake_up, self._wake))
            case _:
                assert_never(effect)

    def _wake_up(self, number: int) -> None:
        if number == self._wake:  # a later WakeAt replaces an earlier one
            self._post(WakeUp())

    def _end(self, request_id: RequestId, cause: str) -> None:
        request = self._open.pop(request_id)
        outcome = Outcome(
            model=request.model,
            arrival_us=request.arrival_us,
            samples=request.samples,
            slo_us=request.deadline_us - request.arrival_us,
            latency_us=None if cause else self._engine.now_us - request.arrival_us,
            cause=cause,
        )
        self.outcomes.append(outcome)
        if self._misses_left is not None and not outcome.in_time:
            self._misses_left -= 1
            if self._misses_left < 0:
                self._engine.halt()

    # The way of a batch

    def _send(self, run: RunBatch) -> None:
        samples = sum(each.count for each in run.slices)
        pipeline = self._pipelines[run.model, run.pipeline]
        travel = _Travel(run, pipeline, samples)
        self._travels[run.batch] = travel
        self._engine.at(self._engine.now_us + self._hop_us, partial(self._reach, travel))

    def _reach(self, travel: _Travel) -> None:
        hop = travel.run.route[travel.stage]
        event = BatchArrived(
            batch=travel.run.batch,
            sequence=hop.sequence,
            start_us=hop.start_us,
            abandon_us=travel.run.abandon_us,
        )
        self._run(self._instances[hop.instance], event)

    def _run(self, instance: _SimulatedInstance, event: RunnerEvent) -> None:
        for effect in instance.runner.handle(self._engine.now_us, event):
            match effect:
                case Compute(batch):
                    self._compute(instance, self._travels[batch])
                case Abandon(batch, reason):
                    del self._travels[batch]
                    self._post(BatchFailed(batch=batch, detail=reason.value, too_late=True))
                case RunnerWakeAt(at_us):
                    self._engine.at(at_us, partial(self._run, instance, RunnerWakeUp()))
                case _:
                    assert_never(effect)

    def _compute(self, instance: _SimulatedInstance, travel: _Travel) -> None:
        planned_us = instance.pool.latency_us_by_batch[travel.samples - 1]
        start_us = self._engine.now_us
        end_us = start_us + self._jitter.stretch(planned_us)
        self.intervals.append(
            Interval(
                instance=instance.id,
                batch=travel.run.batch,
                stage=travel.stage,
                samples=travel.samples,
                start_us=start_us,
                end_us=end_us,
            )
        )
        self._engine.at(end_us, partial(self._computed, instance, travel, end_us - start_us))

    def _computed(self, instance: _SimulatedInstance, travel: _Travel, compute_us: Micros) -> None:
        batch = travel.run.batch
        stage = travel.stage
        self._forward(instance, travel)
        self._run(instance, ComputeFinished(batch))
        self._post(StageFinished(batch=batch, stage=stage, compute_us=compute_us))

    def _forward(self, sender: _SimulatedInstance, travel: _Travel) -> None:
        now_us = self._engine.now_us
        travel.stage += 1
        if travel.stage == len(travel.run.route):
            self._engine.at(now_us + self._hop_us, partial(self._answer, travel.run.batch))
            return
        receiver = self._instances[travel.run.route[travel.stage].instance]
        there_us = now_us
        if sender.server != receiver.server:
            transfer = travel.pipeline.transfers[travel.stage - 1]
            start_us = max(now_us, sender.card.up_us, receiver.card.down_us)
            there_us = start_us + transfer.us_per_sample * travel.samples
            sender.card.up_us = receiver.card.down_us = there_us
        self._engine.at(there_us + self._hop_us, partial(self._reach, travel))

    def _answer(self, batch: BatchId) -> None:
        del self._travels[batch]
        self._post(BatchFinished(batch))


def _joined(plan: Plan) -> list[InstanceJoined]:
    """Place the plan's slots on servers of each class, full servers first."""
    per_server = {each.name: each.gpus_per_server for each in plan.gpu_classes}
    placed: dict[str, int] = {}
    joined: list[InstanceJoined] = []
    for slot in gpu_slots(plan):
        number = placed.get(slot.gpu_class, 0)
        placed[slot.gpu_class] = number + 1
        server = ServerId(f"{slot.gpu_class}-{number // per_server[slot.gpu_class]}")
        joined.extend(
            InstanceJoined(instance=each.id, model=each.model, pool=each.pool, server=server)
            for each in slot.instances
        )
    return joined

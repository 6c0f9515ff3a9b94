"""Workers and links that exist only in the heap: performs the dispatcher's effects.

The dispatcher and the stage runners are the very objects that serve live.

An instance that fails loses what it runs and holds, and what it has not sent whole. Until the
dispatcher hears of it, batches go on being sent there, and vanish; hearing of it the dispatcher
takes back every batch that had still to pass there, so what live senders report besides (the batch
failed, retriable) would tell it nothing new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import assert_never

from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import ModelName, RequestId
from penstock.domain.outcomes import Outcome
from penstock.domain.plan import Plan
from penstock.domain.requests import Request, samples_of
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
    InstanceLost,
    PlanApplied,
    RequestArrived,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.numbered import Numbered
from penstock.scheduling.stage_runner import (
    Abandon,
    BatchArrived,
    BatchCancelled,
    Compute,
    ComputeFinished,
    RunnerEvent,
    RunnerWakeAt,
    RunnerWakeUp,
)
from simulator.cut_batches import CutBatches, Fleet, cut_of
from simulator.engine import Engine
from simulator.fleet import Downtime, Gpu
from simulator.parts import Conditions, Instance, Leg, Travel, instances_of, sent_over, wires_us_of
from simulator.per_hop import Relay
from simulator.record import Computations, QueueLengths
from simulator.run_log import Log


class World:
    """A fleet that runs a plan.

    Attributes:
        outcomes: of the requests that have ended, in order of their end.
        computations: what each instance computed.
        queues: how long how many samples of each model waited.
        losses: how often an instance failed.
    """

    def __init__(
        self,
        plan: Plan,
        gpus: Iterable[Gpu],
        dispatcher: Dispatcher,
        engine: Engine,
        conditions: Conditions,
        window_us: tuple[Micros, Micros],
        most_misses: int | None = None,
        *,
        relay: Relay | None = None,
        log: Log | None = None,
    ) -> None:
        """Get ready.

        Args:
            plan: what is run.
            gpus: where.
            dispatcher: that runs it; new.
            engine: of the simulated time.
            conditions: of the fleet.
            window_us: between which instants queues are looked at.
            most_misses: requests that may miss their SLO; with one more the run ends.
            relay: hands requests from stage to stage, if each is dispatched for itself.
            log: called with (now_us, event, effects) after each event.
        """
        self._misses_left = most_misses
        self._log = log
        self._relay = relay
        self._plan = plan
        self._dispatcher = dispatcher
        self._engine = engine
        self._conditions = conditions
        self._stretch = conditions.stretch
        self._hop_us = plan.hop_overhead_us
        self._instances = instances_of(gpus, conditions)
        self._wires_us = {
            (model.model, each.id): wires_us_of(each, conditions.wire_factor)
            for model in plan.models
            for each in model.pipelines
        }
        self._travels: Numbered[Travel] = Numbered()
        self._open: dict[RequestId, Request] = {}
        self._parts: dict[RequestId, list[tuple[Travel, int]]] = {}
        self._passed: dict[RequestId, list[Travel]] = {}
        self._answered: Travel | None = None
        self._down = dict.fromkeys(self._instances, 0)
        self._wake = 0
        self._inbox: deque[Event] = deque()
        self._handling = False
        # Bound once, as they are scheduled with every batch.
        self._on_reach, self._on_computed = self._reach, self._computed
        self._on_answer, self._on_wake_runner = self._answer, self._wake_runner
        self._touched: set[ModelName] = set()
        self.outcomes: list[Outcome] = []
        self.computations = Computations(tuple(self._instances))
        fleet = Fleet(run=self._run, post=self._post, lose=self._lose, answer=self._answer)
        self._cut = CutBatches(fleet, engine, self.computations, self._hop_us, self._stretch)
        self.queues = {model.model: QueueLengths(*window_us) for model in plan.models}
        self.losses = 0

    @property
    def open_requests(self) -> int:
        """Requests that have come and not ended."""
        return len(self._open)

    @property
    def travelling(self) -> int:
        """Batches that have left and are neither answered nor given up nor lost."""
        return len(self._travels)

    def start(self) -> None:
        """Apply the plan and let every planned instance join, now."""
        self._post(PlanApplied(self._plan))
        for each in self._instances.values():
            self._post(each.joined)
        for downtime in self._conditions.downtimes:
            self._engine.at(downtime.at_us, self._go_down, downtime)

    def offer(self, requests: Iterator[tuple[Micros, Request]]) -> None:
        """Let requests arrive, each at its own instant.

        Args:
            requests: in order of arrival.
        """
        self._engine.feed(requests, self._arrive)

    def _arrive(self, request: Request) -> None:
        self._open[request.id] = request
        self._touched.add(request.model)
        self._post(RequestArrived(request))

    def _note_queues(self) -> None:
        """Look at the queues that may have changed at this instant."""
        for model in self._touched:
            waiting = self._dispatcher.waiting_samples(model)
            self.queues[model].note(self._engine.now_us, waiting)
        self._touched.clear()

    # The dispatcher

    def _post(self, event: Event) -> None:
        """Let the dispatcher handle an event now, or right after the one being handled."""
        if self._handling:
            self._inbox.append(event)
            return
        self._handling = True
        self._handle(event)
        while self._inbox:
            self._handle(self._inbox.popleft())
        self._handling = False
        if self._touched:
            self._note_queues()

    def _handle(self, event: Event) -> None:
        now_us = self._engine.now_us
        effects = self._dispatcher.handle(now_us, event)
        if self._log is not None:
            self._log(now_us, event, effects)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case RunBatch():
                self._send(effect)
            case CompleteRequest():
                self._end(effect.request, "")
            case DropRequest():
                self._end(effect.request, effect.reason.value)
            case CancelBatch(batch, instances):
                for each in instances:
                    self._run(self._instances[each], BatchCancelled(batch))
            case WakeAt(at_us):
                self._wake += 1
                self._engine.at(at_us, self._wake_up, self._wake)
            case _:
                assert_never(effect)

    def _wake_up(self, number: int) -> None:
        if number == self._wake:  # a later WakeAt replaces an earlier one
            self._post(WakeUp())

    def _end(self, request_id: RequestId, cause: str) -> None:
        request = self._open.pop(request_id)
        if cause:
            self._touched.add(request.model)
        travel = self._answered
        if self._relay is not None:
            if travel is not None and not cause and self._goes_on(request, travel, self._relay):
                return
            request = self._relay.ended(request)
        outcome = Outcome(
            model=request.model,
            arrival_us=request.arrival_us,
            samples=request.samples,
            slo_us=request.deadline_us - request.arrival_us,
            latency_us=None if cause else self._engine.now_us - request.arrival_us,
            cause=cause,
        )
        self.outcomes.append(outcome)
        if travel is not None and not cause and self._engine.now_us <= request.deadline_us:
            travel.useful += request.samples
        if self._parts:
            self._share_credit(request, travel, useful=outcome.in_time)
        if self._passed:
            self._credit_passed(request, useful=outcome.in_time)
        if self._misses_left is not None and not outcome.in_time:
            self._misses_left -= 1
            if self._misses_left < 0:
                self._engine.halt()

    def _goes_on(self, request: Request, travel: Travel, relay: Relay) -> bool:
        """Let a request that has left a stage arrive at the next, if there is one."""
        if travel.sender is None:
            return False
        onward = relay.next(request, travel.sender.joined.pool, self._engine.now_us)
        if onward is None:
            return False
        self._passed.setdefault(request.id, []).append(travel)
        self._engine.at(onward.arrival_us, self._arrive, onward)
        return True

    # The way of a batch

    def _send(self, run: RunBatch) -> None:
        instances = tuple([self._instances[hop.instance] for hop in run.route])
        cut = cut_of(run, instances)
        travel = Travel(
            batch=run.batch,
            slices=run.slices,
            samples=samples_of(run.slices),
            wires_us=self._wires_us[run.model, run.pipeline],
            abandon_us=run.abandon_us,
            leg=_legs(run, instances) if cut is None else None,
            cut=cut,
        )
        self._travels.add(run.batch, travel)
        if cut is not None:
            self._cut.send(travel, cut)
        else:
            self._engine.at(self._engine.now_us + self._hop_us, self._on_reach, travel)
        self._touched.add(run.model)

    def _reach(self, travel: Travel) -> None:
        leg = travel.leg
        if leg is None or leg.instance.lost or travel.lost:
            self._lose(travel)
            return
        travel.held = True
        event = BatchArrived(
            batch=travel.batch,
            sequence=leg.sequence,
            start_us=leg.start_us,
            abandon_us=travel.abandon_us,
        )
        self._run(leg.instance, event)

    def _run(self, instance: Instance, event: RunnerEvent) -> None:
        if instance.lost:
            return
        for effect in instance.runner.handle(self._engine.now_us, event):
            match effect:
                case Compute(batch, place):
                    travel = self._travels.get(batch)
                    if travel is None or travel.cut is not None:
                        self._cut.compute(instance, batch, place)
                    else:
                        self._compute(instance, travel)
                case Abandon(batch, reason, place):
                    travel = self._travels.get(batch)
                    if travel is None or travel.cut is not None:
                        self._cut.abandon(instance, batch, place, reason.value)
                    else:
                        self._travels.pop(batch)
                        self._post(BatchFailed(batch=batch, detail=reason.value, too_late=True))
                case RunnerWakeAt(at_us):
                    self._engine.at(at_us, self._on_wake_runner, instance)
                case _:
                    assert_never(effect)

    def _wake_runner(self, instance: Instance) -> None:
        self._run(instance, RunnerWakeUp())

    def _compute(self, instance: Instance, travel: Travel) -> None:
        us = instance.latencies_us[travel.samples - 1]
        if self._stretch is not None:
            us = self._stretch(us)
        travel.since_us = start_us = self._engine.now_us
        travel.computed = self.computations.begin(
            instance.number, travel.stage, travel.batch, travel.samples, start_us, start_us + us
        )
        self._engine.at(start_us + us, self._on_computed, travel)

    def _computed(self, travel: Travel) -> None:
        leg = travel.leg
        if leg is None or travel.lost:
            return
        stage = travel.stage
        compute_us = self._engine.now_us - travel.since_us
        self._forward(travel, leg)
        self._run(leg.instance, ComputeFinished(travel.batch))
        self._post(StageFinished(batch=travel.batch, stage=stage, compute_us=compute_us))

    def _forward(self, travel: Travel, done: Leg) -> None:
        """Send a batch on, to the next instance or back."""
        now_us = self._engine.now_us
        travel.held = False
        travel.since_us = now_us
        travel.sender, travel.leg = done.instance, done.onward
        travel.stage += 1
        if done.onward is None:
            self._engine.at(now_us + self._hop_us, self._on_answer, travel)
            return
        receiver = done.onward.instance
        if receiver.lost:
            self._lose(travel)
            return
        wire_us = round(travel.wires_us[travel.stage - 1] * travel.samples)
        travel.since_us = sent_over(done.instance, receiver, now_us, wire_us)
        self._engine.at(travel.since_us + self._hop_us, self._on_reach, travel)

    def _answer(self, travel: Travel) -> None:
        self._travels.pop(travel.batch)
        self._answered = travel
        self._post(BatchFinished(travel.batch))
        self._answered = None
        for each in travel.slices:
            if each.request in self._open:  # the rest of it is in other batches
                self._parts.setdefault(each.request, []).append((travel, each.count))
        if travel.useful:
            self._mark_useful(travel)

    # Which computations were of use

    def _share_credit(self, request: Request, last: Travel | None, *, useful: bool) -> None:
        """Credit a request that has ended to all batches that carried parts of it."""
        for travel, count in self._parts.pop(request.id, ()):
            if useful and last is not None:
                last.useful -= count
                travel.useful += count
                self._mark_useful(travel)

    def _credit_passed(self, request: Request, *, useful: bool) -> None:
        """Credit a request that has ended to the batches of the stages it came through."""
        for travel in self._passed.pop(request.id, ()):
            if useful:
                travel.useful += request.samples
                self._mark_useful(travel)

    def _mark_useful(self, travel: Travel) -> None:
        if travel.cut is not None:
            self._cut.mark_useful(travel, travel.cut)
        else:
            self.computations.count_batch_useful(travel.batch, travel.useful)

    # Failures

    def _go_down(self, downtime: Downtime) -> None:
        for each in downtime.instances:
            self._down[each] += 1
            if self._down[each] == 1:
                self._fail(self._instances[each])
        if downtime.lasts_us is not None:
            back_us = self._engine.now_us + downtime.lasts_us
            self._engine.at(back_us, self._come_back, downtime)

    def _fail(self, instance: Instance) -> None:
        instance.lost = True
        self.losses += 1
        for travel in self._travels.values():
            if self._is_lost_with(travel, instance):
                self._lose(travel)
        self._cut.fail(instance)
        tell_us = self._engine.now_us + self._conditions.detection_us
        self._engine.at(tell_us, self._tell_lost, instance)

    def _is_lost_with(self, travel: Travel, instance: Instance) -> bool:
        """Tell whether an instance holds a batch, or has not yet sent all of it."""
        if travel.cut is not None:
            return self._cut.is_with(travel.cut, instance)
        if travel.held:
            return travel.leg is not None and travel.leg.instance is instance
        return travel.sender is instance and travel.since_us > self._engine.now_us

    def _lose(self, travel: Travel) -> None:
        travel.lost = True
        self._travels.pop(travel.batch)
        if travel.held and travel.computed >= 0:
            self.computations.cut_short(travel.computed, self._engine.now_us)

    def _tell_lost(self, instance: Instance) -> None:
        if not instance.told:
            instance.told = True
            self._touched.add(instance.joined.model)
            self._post(InstanceLost(instance.joined.instance))

    def _come_back(self, downtime: Downtime) -> None:
        for each in downtime.instances:
            self._down[each] -= 1
            if self._down[each] == 0:
                before = self._instances[each]
                self._tell_lost(before)
                after = Instance(before.number, before.joined, before.latencies_us, before.card)
                self._instances[each] = after
                self._touched.add(after.joined.model)
                self._post(after.joined)


def _legs(run: RunBatch, instances: tuple[Instance, ...]) -> Leg | None:
    """Return the way of a batch that goes whole."""
    leg: Leg | None = None
    for place in range(len(instances) - 1, -1, -1):
        hop = run.route[place]
        leg = Leg(instances[place], hop.sequence, hop.start_us, leg)
    return leg


def check_all_ended(world: World) -> None:
    """Check that no request and no batch was forgotten, at the end of a run.

    Raises:
        InvariantViolation: one was.
    """
    if world.open_requests:
        raise InvariantViolation(f"{world.open_requests} requests have come and not ended")
    if world.travelling:
        raise InvariantViolation(f"{world.travelling} batches have left and not arrived")

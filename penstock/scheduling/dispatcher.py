"""The frontend's machine: queues requests, asks the batching policy, books routes.

Knows nothing of tensors, gRPC, clocks or tasks. The same object runs under asyncio in the
frontend and under the event heap in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import assert_never

from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId, ServerId
from penstock.domain.plan import Plan
from penstock.domain.requests import DropReason, Request, Slice, samples_of
from penstock.domain.units import US_PER_SECOND, Micros
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
from penstock.scheduling.flights import Flight, OpenRequest, open_flight, owed
from penstock.scheduling.instances import (
    Instance,
    NetworkCard,
    live_pipelines,
)
from penstock.scheduling.numbered import Numbered
from penstock.scheduling.offers import book_offer, shorten
from penstock.scheduling.outlook import QueueOutlook
from penstock.scheduling.ports import (
    BatchingPolicy,
    Drop,
    Finished,
    Launch,
    RoutingPolicy,
    Wait,
)
from penstock.scheduling.served import ServedQueue
from penstock.scheduling.waiting import WaitingQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherLimits:
    """Bounds that keep the dispatcher's memory and patience finite.

    Attributes:
        queue_samples: samples that may wait per model; more are shed.
        rebookings: how often a request survives the loss of a batch.
        stall_us: a batch silent for this long after its last deadline is lost.
    """

    queue_samples: int = 4096
    rebookings: int = 3
    stall_us: Micros = 2 * US_PER_SECOND


class Dispatcher:
    """Turns requests into booked batches.

    Laws: see `penstock.scheduling.machine`. Invariants, checked by
    `penstock.scheduling.invariants.validate`: each request ends exactly once; its samples are
    each waiting, in a flight, or answered; bookings on one timeline never overlap; at most one
    wake-up is armed and it lies in the future.
    """

    def __init__(
        self,
        batching: Callable[[], BatchingPolicy],
        routing: Callable[[], RoutingPolicy],
        limits: DispatcherLimits | None = None,
    ) -> None:
        self._new_batching = batching
        self._new_routing = routing
        self._limits = limits or DispatcherLimits()
        self._hop_us: Micros = 0
        self._queues: dict[ModelName, ServedQueue] = {}
        self._instances: dict[InstanceId, Instance] = {}
        self._cards: dict[ServerId, NetworkCard] = {}
        self._requests: dict[RequestId, OpenRequest] = {}
        self._flights: Numbered[Flight] = Numbered()
        self._give_up_us: Micros | None = None  # no flight is given up before
        self._arrived: dict[ModelName, None] = {}  # a set whose order is known
        self._next_batch = 0
        self._now_us: Micros = 0
        self._armed_us: Micros | None = None
        self._needed_us: Micros | None = None

    @property
    def open_requests(self) -> int:
        """Requests without an outcome."""
        return len(self._requests)

    def waiting_samples(self, model: ModelName) -> int:
        """Return how many samples of a model wait for a batch."""
        queue = self._queues.get(model)
        return queue.waiting.samples if queue else 0

    def has_route(self, model: ModelName) -> bool:
        """Return whether some pipeline of the model has an instance in each pool."""
        queue = self._queues.get(model)
        return queue is not None and bool(queue.routes())

    def handle(self, now_us: Micros, event: Event) -> list[Effect]:
        """Take one event; the driver performs the effects in order.

        Raises:
            InvariantViolation: time went back, or a bug.
        """
        if now_us < self._now_us:
            raise InvariantViolation(f"time went back from {self._now_us} to {now_us}")
        self._now_us = now_us
        effects: list[Effect] = []
        self._take(event, effects)
        self._arm(effects)
        return effects

    def _take(self, event: Event, effects: list[Effect]) -> None:
        match event:  # the frequent ones first: they are tried in order
            case StageFinished():
                self._finish_stage(event, effects)
            case RequestArrived():
                self._arrive(event, effects)
            case BatchFinished(batch):
                self._finish_batch(batch, effects)
            case WakeUp():
                self._wake(effects)
            case RequestCancelled(request_id):
                self._cancel(request_id, effects)
            case BatchFailed():
                self._fail_batch(event, effects)
            case InstanceJoined():
                self._join(event, effects)
            case InstanceLost(instance):
                self._lose(instance, effects)
            case PlanApplied(plan):
                self._apply(plan, effects)
            case _:
                assert_never(event)

    # Requests

    def _arrive(self, event: RequestArrived, effects: list[Effect]) -> None:
        request = event.request
        queue = self._queues.get(request.model)
        refusal = self._refusal(request, queue)
        if refusal is not None or queue is None:
            effects.append(refusal or _unknown_model(request))
        else:
            self._line_up(request, queue)
        if not event.followed:
            self._dispatch_arrived(effects)

    def _line_up(self, request: Request, queue: ServedQueue) -> None:
        self._requests[request.id] = OpenRequest(request, request.samples)
        queue.waiting.push(request, 0, request.samples)
        queue.arrivals.add(self._now_us, request.samples)
        self._arrived[request.model] = None

    def _dispatch_arrived(self, effects: list[Effect]) -> None:
        """Dispatch the models of the requests that have arrived together."""
        while self._arrived:
            model, _ = self._arrived.popitem()
            queue = self._queues.get(model)
            if queue is not None and not queue.holds(self._now_us):
                self._dispatch(queue, effects)

    def _refusal(self, request: Request, queue: ServedQueue | None) -> DropRequest | None:
        if queue is None:
            return _unknown_model(request)
        if request.deadline_us <= self._now_us:
            return DropRequest(request.id, DropReason.DEADLINE, "the deadline has passed")
        if not queue.routes():
            empty = [pool.plan.id for pool in queue.pools.values() if not pool.instances]
            detail = f"no instance is ready in {', '.join(empty)}"
            return DropRequest(request.id, DropReason.UNAVAILABLE, detail)
        if queue.waiting.samples + request.samples > self._limits.queue_samples:
            detail = f"{queue.waiting.samples} samples wait, {self._limits.queue_samples} may"
            return DropRequest(request.id, DropReason.SHED, detail)
        return None

    def _cancel(self, request_id: RequestId, effects: list[Effect]) -> None:
        if request_id not in self._requests:
            return
        model = self._requests[request_id].request.model
        self._end(request_id, DropReason.CANCELLED, "the client went away", effects)
        self._dispatch(self._queues[model], effects)

    def _end(
        self, request_id: RequestId, reason: DropReason, detail: str, effects: list[Effect]
    ) -> None:
        """Drop a request wherever its samples are; batches nobody waits for are cancelled."""
        open_request = self._requests.pop(request_id)
        self._queues[open_request.request.model].waiting.remove(request_id)
        effects.append(DropRequest(request_id, reason, detail))
        for batch in sorted(open_request.batches):
            flight = self._flights[batch]
            if not owed(self._requests, flight):
                effects.append(self._cancelled(flight))

    def _cancelled(self, flight: Flight) -> CancelBatch:
        """Return the word to the instances that have not reported, and are still there."""
        pending = flight.pending_instances()
        return CancelBatch(flight.batch, tuple(each for each in pending if each in self._instances))

    # Batches

    def _dispatch(self, queue: ServedQueue, effects: list[Effect]) -> None:
        """Ask the policy until it waits or the queue is empty."""
        queue.let_go()
        routes = queue.routes()
        while (head := queue.waiting.head()) is not None:
            if not routes:
                self._await_route(queue, head, effects)
                if queue.wake_us is not None:
                    return
                continue
            outlook = QueueOutlook(
                now_us=self._now_us,
                head=head,
                waiting=queue.waiting.samples,
                queued=queue.waiting.in_order,
                pipelines=routes,
                routing=queue.routing,
                hop_us=self._hop_us,
                errors=queue.errors,
                load=queue.load(),
            )
            decision = queue.batching.decide(outlook)
            if isinstance(decision, Launch):
                self._launch(queue, decision, effects)
            elif isinstance(decision, Wait):
                self._hold(queue, decision)
                return
            elif isinstance(decision, Drop):
                lost = self._requests[head.id].rebooked > 0
                reason = DropReason.UNAVAILABLE if lost else decision.reason
                self._end(head.id, reason, decision.detail, effects)
            else:
                assert_never(decision)

    def _await_route(self, queue: ServedQueue, head: Request, effects: list[Effect]) -> None:
        if head.deadline_us > self._now_us:
            self._hold(queue, Wait(head.deadline_us))
        else:
            detail = "an instance was lost and none took its place in time"
            self._end(head.id, DropReason.UNAVAILABLE, detail, effects)

    def _hold(self, queue: ServedQueue, wait: Wait) -> None:
        if wait.until_us is not None:
            if wait.until_us <= self._now_us:
                raise InvariantViolation(
                    f"a policy waits until {wait.until_us}, it is {self._now_us}"
                )
            self._need(wait.until_us)
        queue.hold(wait)

    def _need(self, at_us: Micros) -> None:
        """See that a wake-up is asked for, no later than that."""
        if self._needed_us is None or at_us < self._needed_us:
            self._needed_us = at_us

    def _launch(self, queue: ServedQueue, launch: Launch, effects: list[Effect]) -> None:
        offer = launch.offer
        slices = queue.waiting.take(offer.size)
        if launch.only_in_time:
            slices = self._put_back_late(queue, slices, offer.completion_us)
        if offer.size > offer.pipeline.uncut:
            offer = shorten(offer, samples_of(slices))
        batch = BatchId(self._next_batch)
        self._next_batch += 1
        requests = [self._requests[each.request] for each in slices]
        abandon_us = max([each.request.deadline_us for each in requests])
        give_up_us = max(abandon_us, offer.completion_us) + self._limits.stall_us
        flight = open_flight(batch, offer, tuple(slices), self._now_us, give_up_us)
        self._flights.add(batch, flight)
        self._watch(flight)
        for each in requests:
            each.board(batch)
        queue.routing.launched(offer)
        effects.append(
            RunBatch(
                batch=batch,
                model=queue.plan.model,
                pipeline=offer.pipeline.id,
                route=book_offer(offer, self._now_us),
                slices=flight.slices,
                abandon_us=abandon_us,
                completion_us=offer.completion_us,
            )
        )

    def _watch(self, flight: Flight) -> None:
        """See that a flight is given up in time; most are answered long before."""
        if self._give_up_us is None or flight.give_up_us < self._give_up_us:
            self._give_up_us = flight.give_up_us
            self._need(self._give_up_us)

    def _put_back_late(
        self, queue: ServedQueue, slices: list[Slice], completion_us: Micros
    ) -> list[Slice]:
        kept: list[Slice] = []
        for each in slices:
            request = self._requests[each.request].request
            if request.deadline_us >= completion_us:
                kept.append(each)
            else:
                queue.waiting.push(request, each.first, each.count)
        return kept

    def _finish_stage(self, event: StageFinished, effects: list[Effect]) -> None:
        flight = self._flights.get(event.batch)
        if flight is None or event.stage >= len(flight.hops):
            return
        queue = self._queues[flight.model]
        if flight.finish_hop(event.stage, self._now_us, event.compute_us) or not queue.holds(
            self._now_us
        ):
            self._dispatch(queue, effects)

    def _finish_batch(self, batch: BatchId, effects: list[Effect]) -> None:
        flight = self._flights.pop(batch)
        if flight is None:
            return
        flight.release(self._now_us)
        in_time = True
        for each in flight.slices:
            open_request = self._requests.get(each.request)
            if open_request is None:
                continue
            open_request.unanswered -= each.count
            met = self._now_us <= open_request.request.deadline_us
            in_time &= met
            if open_request.unanswered:
                open_request.leave(batch)
            else:
                del self._requests[each.request]
                effects.append(CompleteRequest(each.request, met))
        queue = self._queues[flight.model]
        took_us = self._now_us - flight.launched_us
        queue.batching.observe(Finished(flight.pipeline, flight.size, took_us, in_time))
        error_us = self._now_us - flight.completion_us
        queue.errors.add(error_us)
        if error_us or not queue.holds(self._now_us):
            self._dispatch(queue, effects)

    def _fail_batch(self, event: BatchFailed, effects: list[Effect]) -> None:
        flight = self._flights.pop(event.batch)
        if flight is None:
            return
        flight.release(self._now_us)
        if flight.parts:  # others may still run, or wait for rows that never come
            effects.append(self._cancelled(flight))
        if event.retriable:
            self._rebook(flight, event.detail, effects)
        else:
            if event.too_late:  # it would have been answered later still
                errors = self._queues[flight.model].errors
                errors.add(max(0, self._now_us - flight.completion_us))
            reason = DropReason.DEADLINE if event.too_late else DropReason.FAILED
            self._end_all(flight, reason, event.detail, effects)
        self._dispatch(self._queues[flight.model], effects)

    def _rebook(self, flight: Flight, detail: str, effects: list[Effect]) -> None:
        """Queue the samples of a lost flight again, or end requests that lost too many."""
        waiting = self._queues[flight.model].waiting
        for open_request in owed(self._requests, flight):
            open_request.leave(flight.batch)
            open_request.rebooked += 1
            if open_request.rebooked > self._limits.rebookings:
                self._end(open_request.request.id, DropReason.UNAVAILABLE, detail, effects)
        for each in flight.slices:
            if each.request in self._requests:
                waiting.push(self._requests[each.request].request, each.first, each.count)

    def _end_all(
        self, flight: Flight, reason: DropReason, detail: str, effects: list[Effect]
    ) -> None:
        for open_request in owed(self._requests, flight):
            open_request.leave(flight.batch)
            self._end(open_request.request.id, reason, detail, effects)

    # Instances and plans

    def _join(self, event: InstanceJoined, effects: list[Effect]) -> None:
        queue = self._queues.get(event.model)
        if queue is None or event.pool not in queue.pools:
            return
        if event.instance in self._instances:
            self._lose(event.instance, effects)
        card = self._cards.setdefault(event.server, NetworkCard())
        pool = queue.pools[event.pool]
        instance = Instance(event.instance, event.model, pool, event.server, card)
        self._instances[event.instance] = instance
        pool.join(instance)
        queue.fleet_changed()
        self._dispatch(queue, effects)

    def _lose(self, instance_id: InstanceId, effects: list[Effect]) -> None:
        instance = self._instances.pop(instance_id, None)
        if instance is None:
            return
        queue = self._queues[instance.model]
        instance.pool.leave(instance)
        queue.fleet_changed()
        self._abort(
            (each for each in self._flights.values() if instance_id in each.pending_instances()),
            f"instance {instance_id} was lost",
            effects,
        )
        self._dispatch(queue, effects)

    def _abort(self, flights: Iterable[Flight], detail: str, effects: list[Effect]) -> None:
        for flight in flights:
            self._flights.pop(flight.batch)
            flight.release(self._now_us)
            effects.append(self._cancelled(flight))
            self._rebook(flight, detail, effects)

    def _apply(self, plan: Plan, effects: list[Effect]) -> None:
        """Serve by this plan. Instances of the old one are forgotten; they join anew."""
        for queue in self._queues.values():
            self._abort(
                [each for each in self._flights.values() if each.model == queue.plan.model],
                "the plan was replaced",
                effects,
            )
        old = self._queues
        self._instances.clear()
        self._cards.clear()
        self._hop_us = plan.hop_overhead_us
        self._queues = {}
        for model in plan.models:
            pools, pipelines = live_pipelines(model)
            kept = old.pop(model.model, None)
            self._queues[model.model] = ServedQueue(
                plan=model,
                pools=pools,
                pipelines=pipelines,
                waiting=kept.waiting if kept else WaitingQueue(),
                batching=self._new_batching(),
                routing=self._new_routing(),
            )
        for request_id, each in list(self._requests.items()):
            if each.request.model in old:
                del self._requests[request_id]
                detail = "the model left the plan"
                effects.append(DropRequest(request_id, DropReason.UNAVAILABLE, detail))
        for queue in self._queues.values():
            self._dispatch(queue, effects)

    # Time

    def _wake(self, effects: list[Effect]) -> None:
        self._armed_us = None
        self._needed_us = None
        self._give_up_overdue(effects)
        for queue in self._queues.values():
            if queue.wake_us is not None and queue.wake_us <= self._now_us:
                self._dispatch(queue, effects)
            if queue.wake_us is not None:
                self._need(queue.wake_us)
        if self._give_up_us is not None:
            self._need(self._give_up_us)

    def _give_up_overdue(self, effects: list[Effect]) -> None:
        """Give up flights that nothing was heard of, the first due first.

        All flights are looked at, but seldom: only once the first of those that there were the
        last time would be due.
        """
        if self._give_up_us is None or self._now_us < self._give_up_us:
            return
        flights = self._flights.values()
        overdue = [each for each in flights if each.give_up_us <= self._now_us]
        for flight in sorted(overdue, key=attrgetter("give_up_us", "batch")):
            self._flights.pop(flight.batch)
            flight.release(self._now_us)
            effects.append(self._cancelled(flight))
            detail = f"nothing was heard of batch {flight.batch}"
            self._end_all(flight, DropReason.DEADLINE, detail, effects)
        self._give_up_us = min((each.give_up_us for each in self._flights.values()), default=None)

    def _arm(self, effects: list[Effect]) -> None:
        """Ask for a wake-up no later than the next one needed.

        One that is armed for an earlier instant stays: it will find nothing to do and ask for the
        next. Most are needed no more by then, so fewer are asked for than there are reasons.
        """
        if self._needed_us is None or (
            self._armed_us is not None and self._armed_us <= self._needed_us
        ):
            return
        self._armed_us = self._needed_us = max(self._needed_us, self._now_us + 1)
        effects.append(WakeAt(self._armed_us))


def _unknown_model(request: Request) -> DropRequest:
    return DropRequest(
        request.id, DropReason.UNAVAILABLE, f"model {request.model!r} is not in the plan"
    )

"""Follows what the dispatcher does and writes one record for each request, batch and stage.

Reads the driver's log of (now, event, effects), so that it sees what the run log sees and can
change nothing. Knows nothing of Prometheus or of the protocol's statistics: those are books that
take its records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from penstock.domain.ids import BatchId, InstanceId, ModelName, PoolId, RequestId
from penstock.domain.requests import Request, Slice, samples_of
from penstock.domain.units import Micros
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    Hop,
    PartHop,
    RunBatch,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    StageFinished,
)

ANSWERED = "answered"
LATE = "late"
CANCELLED = "cancelled"


class RequestRecord(NamedTuple):
    """How one request ended.

    Attributes:
        outcome: `ANSWERED`, `LATE` (answered after its deadline) or a drop reason's value.
        duration_us: from arrival to the end.
        queue_us: from arrival to the start of its last batch; None if none was finished.
        compute_us: time that batch computed, all stages together.
        handover_us: the rest of that batch's time: transfers and waiting between stages.
    """

    model: ModelName
    samples: int
    outcome: str
    duration_us: Micros
    queue_us: Micros | None = None
    compute_us: Micros = 0
    handover_us: Micros = 0

    @property
    def answered(self) -> bool:
        """Whether the client got an answer, in time or not."""
        return self.outcome in (ANSWERED, LATE)


class BatchRecord(NamedTuple):
    """One batch that went through."""

    model: ModelName
    samples: int
    compute_us: Micros
    handover_us: Micros


class StageRecord(NamedTuple):
    """One stage of one batch."""

    model: ModelName
    pool: PoolId
    compute_us: Micros


class Book(Protocol):
    """Takes the ledger's records."""

    def request_ended(self, record: RequestRecord) -> None:
        """Note the end of a request."""
        ...

    def batch_ended(self, record: BatchRecord) -> None:
        """Note a finished batch."""
        ...

    def stage_ended(self, record: StageRecord) -> None:
        """Note a finished stage."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    model: ModelName
    slices: tuple[Slice, ...]
    route: tuple[Hop | PartHop, ...]
    launched_us: Micros
    started_us: Micros | None = None
    computed_us: dict[int, Micros] = field(default_factory=dict)

    @property
    def compute_us(self) -> Micros:
        """How long its stages computed; of one that runs in parts, the longest."""
        return sum(self.computed_us.values())

    def end_hop(self, now_us: Micros, place: int, compute_us: Micros) -> None:
        """Take a report."""
        hop = self.route[place]
        stage = hop.stage if isinstance(hop, PartHop) else place
        self.computed_us[stage] = max(compute_us, self.computed_us.get(stage, 0))
        if stage == 0:
            started_us = now_us - compute_us
            first_us = started_us if self.started_us is None else self.started_us
            self.started_us = min(first_us, started_us)

    @property
    def samples(self) -> int:
        return samples_of(self.slices)

    def start_us(self, now_us: Micros) -> Micros:
        """Return when its first stage started, as reported or else as booked."""
        started_us = self.route[0].start_us if self.started_us is None else self.started_us
        return min(max(self.launched_us, started_us), now_us)


@dataclass(slots=True, eq=False)
class _Open:
    request: Request
    queue_us: Micros | None = None
    last: BatchRecord | None = None


@dataclass(slots=True, eq=False)
class Ledger:
    """Matches events with effects.

    Invariant: holds a request from its arrival to its end and a batch from its launch to its end,
    nothing longer.
    """

    books: tuple[Book, ...]
    open_requests: Counter[ModelName] = field(default_factory=Counter)
    pool_of: dict[InstanceId, PoolId] = field(default_factory=dict)
    _requests: dict[RequestId, _Open] = field(default_factory=dict)
    _flights: dict[BatchId, _Flight] = field(default_factory=dict)

    def __call__(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        """Take one entry of the driver's log."""
        self._follow_event(now_us, event)
        for effect in effects:
            self._follow_effect(now_us, effect)

    def ready_instances(self, pool: PoolId) -> int:
        """Return how many instances of a pool are ready."""
        return sum(each == pool for each in self.pool_of.values())

    def _follow_event(self, now_us: Micros, event: Event) -> None:
        match event:  # the frequent ones first: they are tried in order
            case StageFinished():
                self._end_stage(now_us, event)
            case RequestArrived():
                self._requests[event.request.id] = _Open(event.request)
                self.open_requests[event.request.model] += 1
            case BatchFinished():
                self._end_batch(now_us, event.batch)
            case BatchFailed():
                self._flights.pop(event.batch, None)
            case InstanceJoined():
                self.pool_of[event.instance] = event.pool
            case InstanceLost():
                self.pool_of.pop(event.instance, None)
            case PlanApplied():
                self.pool_of.clear()
            case _:
                pass

    def _follow_effect(self, now_us: Micros, effect: Effect) -> None:
        match effect:
            case CompleteRequest():
                outcome = ANSWERED if effect.met_deadline else LATE
                self._end_request(now_us, effect.request, outcome)
            case RunBatch():
                self._launch(now_us, effect)
            case DropRequest():
                self._end_request(now_us, effect.request, effect.reason.value)
            case CancelBatch():
                self._flights.pop(effect.batch, None)
            case _:
                pass

    def _launch(self, now_us: Micros, effect: RunBatch) -> None:
        self._flights[effect.batch] = _Flight(effect.model, effect.slices, effect.route, now_us)

    def _end_stage(self, now_us: Micros, event: StageFinished) -> None:
        flight = self._flights.get(event.batch)
        if flight is None or event.stage >= len(flight.route):
            return
        flight.end_hop(now_us, event.stage, event.compute_us)
        pool = self.pool_of.get(flight.route[event.stage].instance)
        if pool is not None:
            record = StageRecord(model=flight.model, pool=pool, compute_us=event.compute_us)
            for book in self.books:
                book.stage_ended(record)

    def _end_batch(self, now_us: Micros, batch: BatchId) -> None:
        flight = self._flights.pop(batch, None)
        if flight is None:
            return
        start_us = flight.start_us(now_us)
        record = BatchRecord(
            model=flight.model,
            samples=flight.samples,
            compute_us=flight.compute_us,
            handover_us=max(0, now_us - start_us - flight.compute_us),
        )
        for each in flight.slices:
            served = self._requests.get(each.request)
            if served is not None:
                served.last = record
                served.queue_us = start_us - served.request.arrival_us
        for book in self.books:
            book.batch_ended(record)

    def _end_request(self, now_us: Micros, request: RequestId, outcome: str) -> None:
        ended = self._requests.pop(request)
        self.open_requests[ended.request.model] -= 1
        record = RequestRecord(
            model=ended.request.model,
            samples=ended.request.samples,
            outcome=outcome,
            duration_us=now_us - ended.request.arrival_us,
            queue_us=ended.queue_us,
            compute_us=ended.last.compute_us if ended.last else 0,
            handover_us=ended.last.handover_us if ended.last else 0,
        )
        for book in self.books:
            book.request_ended(record)

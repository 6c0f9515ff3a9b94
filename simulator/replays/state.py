"""What was open at a place in a run log: requests, waiting samples, batches on their way.

Follows from the entries alone, so that it can be told of a log that no dispatcher is at hand for.
Believes what it reads: of what it never met, it takes no notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.requests import Request
from penstock.formats.runlog import LogEntry
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """What is open of one model."""

    waiting_samples: int
    open_requests: int
    batches: int


@dataclass(slots=True, eq=False)
class _Open:
    """A request without an outcome, and how many of its samples are in no batch."""

    request: Request
    waiting: int


class LogState:
    """Follows a log, entry by entry; as large as what is open, not as the log."""

    def __init__(self) -> None:
        self._open: dict[RequestId, _Open] = {}
        self._batches: dict[BatchId, RunBatch] = {}
        self._instances: dict[InstanceId, ModelName] = {}

    @property
    def open_requests(self) -> int:
        """Requests without an outcome."""
        return len(self._open)

    def request(self, request: RequestId) -> Request | None:
        """Return a request that is open."""
        found = self._open.get(request)
        return found.request if found else None

    def model(self, model: ModelName) -> ModelState:
        """Count what is open of a model."""
        mine = [each for each in self._open.values() if each.request.model == model]
        return ModelState(
            waiting_samples=sum(each.waiting for each in mine),
            open_requests=len(mine),
            batches=sum(each.model == model for each in self._batches.values()),
        )

    def concerned(self, entry: LogEntry) -> tuple[ModelName, ...]:
        """Return the models that the next entry is about, sorted; none if it is about all.

        A plan is about all; a wake-up, about those that its effects name.
        """
        if isinstance(entry.event, PlanApplied):
            return ()
        found = [self._of_event(entry.event), *map(self._of_effect, entry.effects)]
        if isinstance(entry.event, RequestArrived):  # not open yet: its effects may name it
            found = [entry.event.request.model, *found]
        return tuple(sorted({each for each in found if each is not None}))

    def take(self, entry: LogEntry) -> None:
        """Go past the next entry."""
        self._take_event(entry.event)
        for each in entry.effects:
            self._take_effect(each)

    def _of_event(self, event: Event) -> ModelName | None:
        match event:
            case RequestCancelled(request):
                return self._of_request(request)
            case StageFinished() | BatchFinished() | BatchFailed():
                return self._of_batch(event.batch)
            case InstanceJoined():
                return event.model
            case InstanceLost(instance):
                return self._instances.get(instance)
            case _:
                return None

    def _of_effect(self, effect: Effect) -> ModelName | None:
        match effect:
            case RunBatch():
                return effect.model
            case CompleteRequest() | DropRequest():
                return self._of_request(effect.request)
            case CancelBatch(batch):
                return self._of_batch(batch)
            case WakeAt():
                return None

    def _of_request(self, request: RequestId) -> ModelName | None:
        found = self._open.get(request)
        return found.request.model if found else None

    def _of_batch(self, batch: BatchId) -> ModelName | None:
        found = self._batches.get(batch)
        return found.model if found else None

    def _take_event(self, event: Event) -> None:
        match event:
            case RequestArrived(request):
                self._open[request.id] = _Open(request, request.samples)
            case BatchFinished(batch):
                self._batches.pop(batch, None)
            case BatchFailed():  # what does not wait again is dropped by the effects
                self._wait_again(event.batch)
            case InstanceJoined():
                self._instances[event.instance] = event.model
            case InstanceLost(instance):
                self._instances.pop(instance, None)
            case PlanApplied():
                self._instances.clear()
            case _:
                pass

    def _take_effect(self, effect: Effect) -> None:
        match effect:
            case RunBatch():
                self._batches[effect.batch] = effect
                for each, count in self._slices(effect):
                    each.waiting -= count
            case CancelBatch(batch):
                self._wait_again(batch)
            case CompleteRequest() | DropRequest():
                self._open.pop(effect.request, None)
            case WakeAt():
                pass

    def _wait_again(self, batch: BatchId) -> None:
        run = self._batches.pop(batch, None)
        if run is not None:
            for each, count in self._slices(run):
                each.waiting += count

    def _slices(self, run: RunBatch) -> Iterable[tuple[_Open, int]]:
        for each in run.slices:
            if each.request in self._open:
                yield self._open[each.request], each.count

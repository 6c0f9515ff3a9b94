"""The machine of one stage instance: runs batches one at a time, in the order they were booked.

Where the stages of a pipeline differ in batch size an instance runs parts of batches, perhaps
several of one, and the rows of a part may come from several senders. A part is then what a batch
is here; its batch and the place of its hop in the route name it. Knows nothing of tensors, links
or devices: its driver receives, computes and sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from penstock.domain.ids import BatchId
from penstock.domain.units import Micros

# What is cancelled may have rows on the way, or none; of so many we remember it.
_REMEMBERED_CANCELLATIONS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchArrived:
    """A batch's tensors are here, or some rows of a part.

    Attributes:
        sequence: place in the order booked on this instance, from 0 without gaps.
        start_us: booked start, on the local clock.
        abandon_us: from then on nobody waits for it.
        place: of the part's hop in the route; 0 for a whole batch.
        rows: that came now, none of them before.
        of_rows: that there have to be.
    """

    batch: BatchId
    sequence: int
    start_us: Micros
    abandon_us: Micros
    place: int = 0
    rows: int = 1
    of_rows: int = 1


@dataclass(frozen=True, slots=True)
class ComputeFinished:
    """The running batch is done, well or not."""

    batch: BatchId
    place: int = 0


@dataclass(frozen=True, slots=True)
class BatchCancelled:
    """Nobody waits for this batch any more, nor for any part of it."""

    batch: BatchId


@dataclass(frozen=True, slots=True)
class RunnerWakeUp:
    """The instant asked for by `RunnerWakeAt` has come."""


RunnerEvent: TypeAlias = BatchArrived | ComputeFinished | BatchCancelled | RunnerWakeUp


class AbandonReason(Enum):
    """Why a batch was not run."""

    LATE = "late"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Compute:
    """Start this batch now; nothing else is running."""

    batch: BatchId
    place: int = 0


@dataclass(frozen=True, slots=True)
class Abandon:
    """Forget this batch's tensors and report it."""

    batch: BatchId
    reason: AbandonReason
    place: int = 0


@dataclass(frozen=True, slots=True)
class RunnerWakeAt:
    """Send `RunnerWakeUp` at that instant. Replaces any earlier one."""

    at_us: Micros


RunnerEffect: TypeAlias = Compute | Abandon | RunnerWakeAt


@dataclass(slots=True, eq=False)
class _Incomplete:
    """A part that lacks rows; `last` is what came last of it."""

    last: BatchArrived
    missing: int


class StageRunner:
    """Runs batches of one instance.

    A batch that is next in the booked order starts as soon as the instance is idle. If an
    earlier one is still on its way, a later one waits for its own booked start and then goes
    first: the missing batch may never come. Nor may the missing rows of a part: what has come of it
    is forgotten once nobody waits for it.

    Invariants: at most one batch runs; no batch is both waiting and running.

    A simulated fleet has thousands: what an instance keeps while little happens is small.
    """

    __slots__ = (
        "_armed_us",
        "_cancelled",
        "_incomplete",
        "_next_sequence",
        "_running",
        "_running_batch",
        "_running_place",
        "_waiting",
    )

    def __init__(self) -> None:
        self._incomplete: tuple[_Incomplete, ...] = ()
        self._waiting: tuple[BatchArrived, ...] = ()
        self._running = False
        self._running_batch = BatchId(0)
        self._running_place = 0
        self._next_sequence = 0
        self._cancelled: dict[BatchId, None] | None = None  # until there are any
        self._armed_us: Micros | None = None

    def handle(self, now_us: Micros, event: RunnerEvent) -> list[RunnerEffect]:
        """Take one event; the driver performs the effects in order."""
        effects: list[RunnerEffect] = []
        match event:
            case BatchArrived():
                self._arrive(event, effects)
            case ComputeFinished(batch, place):
                if batch == self._running_batch and place == self._running_place:
                    self._running = False
            case BatchCancelled(batch):
                self._cancel(batch, effects)
            case RunnerWakeUp():
                self._armed_us = None
            case _:
                assert_never(event)
        wake_us = self._start_next(now_us, effects)
        if self._incomplete:
            wake_us = self._watch_incomplete(now_us, wake_us, effects)
        if wake_us is not None:
            self._armed_us = wake_us
            effects.append(RunnerWakeAt(wake_us))
        return effects

    def _arrive(self, event: BatchArrived, effects: list[RunnerEffect]) -> None:
        if self._cancelled is not None and event.batch in self._cancelled:
            self._pass_over(event)
            effects.append(Abandon(event.batch, AbandonReason.CANCELLED, event.place))
            return
        missing = event.of_rows - event.rows
        for each in self._incomplete:
            if _is(each.last, event.batch, event.place):
                missing = each.missing - event.rows
                self._incomplete = tuple([other for other in self._incomplete if other is not each])
                break
        if missing > 0:
            self._incomplete += (_Incomplete(event, missing),)
        else:
            self._await_turn(event)

    def _await_turn(self, event: BatchArrived) -> None:
        for each in self._waiting:
            if _is(each, event.batch, event.place):  # told twice
                told = [event if other is each else other for other in self._waiting]
                self._waiting = tuple(told)
                return
        self._waiting += (event,)

    def _cancel(self, batch: BatchId, effects: list[RunnerEffect]) -> None:
        for each in self._waiting:
            if each.batch == batch:
                self._forget(each)
                self._give_up(each, AbandonReason.CANCELLED, effects)
        for part in self._incomplete:
            if part.last.batch == batch:
                self._give_up(part.last, AbandonReason.CANCELLED, effects)
        self._incomplete = tuple([part for part in self._incomplete if part.last.batch != batch])
        if self._cancelled is None:
            self._cancelled = {}
        self._cancelled[batch] = None
        if len(self._cancelled) > _REMEMBERED_CANCELLATIONS:
            del self._cancelled[next(iter(self._cancelled))]

    def _start_next(self, now_us: Micros, effects: list[RunnerEffect]) -> Micros | None:
        """Start what is next, if it may; return when to look again if only time is missing."""
        if self._running or not self._waiting:
            return None
        for each in self._waiting:
            if each.abandon_us <= now_us:
                self._forget(each)
                self._give_up(each, AbandonReason.LATE, effects)
        first = self._first_waiting()
        if first is None:
            return None
        if first.sequence > self._next_sequence and first.start_us > now_us:
            return first.start_us
        self._running, self._running_batch, self._running_place = True, first.batch, first.place
        self._forget(first)
        self._pass_over(first)
        effects.append(Compute(first.batch, first.place))
        return None

    def _forget(self, batch: BatchArrived) -> None:
        """Let a batch wait no more."""
        self._waiting = tuple([each for each in self._waiting if each is not batch])

    def _first_waiting(self) -> BatchArrived | None:
        """Return what was booked first of all that waits."""
        first: BatchArrived | None = None
        for each in self._waiting:
            if first is None or each.sequence < first.sequence:
                first = each
        return first

    def _watch_incomplete(
        self, now_us: Micros, wake_us: Micros | None, effects: list[RunnerEffect]
    ) -> Micros | None:
        """Give up parts whose rows come too late; return when to look again, unless that is set."""
        for each in self._incomplete:
            if each.last.abandon_us <= now_us:
                self._give_up(each.last, AbandonReason.LATE, effects)
        self._incomplete = tuple(
            [each for each in self._incomplete if each.last.abandon_us > now_us]
        )
        if not self._incomplete:
            return wake_us
        late_us = min(each.last.abandon_us for each in self._incomplete)
        if wake_us is not None:
            return min(wake_us, late_us)
        return None if self._armed_us == late_us else late_us

    def _give_up(
        self, batch: BatchArrived, reason: AbandonReason, effects: list[RunnerEffect]
    ) -> None:
        self._pass_over(batch)
        effects.append(Abandon(batch.batch, reason, batch.place))

    def _pass_over(self, batch: BatchArrived) -> None:
        self._next_sequence = max(self._next_sequence, batch.sequence + 1)


def _is(event: BatchArrived, batch: BatchId, place: int) -> bool:
    return event.batch == batch and event.place == place

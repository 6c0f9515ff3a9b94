"""The machine of one stage instance: runs batches one at a time, in the order they were booked.

Knows nothing of tensors, links or devices: its driver receives, computes and sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from penstock.domain.ids import BatchId
from penstock.domain.units import Micros

# A cancelled batch that never arrives would be remembered for ever; this many are enough.
_REMEMBERED_CANCELLATIONS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchArrived:
    """A batch's tensors are here.

    Attributes:
        sequence: place in the order booked on this instance, from 0 without gaps.
        start_us: booked start, on the local clock.
        abandon_us: from then on nobody waits for it.
    """

    batch: BatchId
    sequence: int
    start_us: Micros
    abandon_us: Micros


@dataclass(frozen=True, slots=True)
class ComputeFinished:
    """The running batch is done, well or not."""

    batch: BatchId


@dataclass(frozen=True, slots=True)
class BatchCancelled:
    """Nobody waits for this batch any more."""

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


@dataclass(frozen=True, slots=True)
class Abandon:
    """Forget this batch's tensors and report it."""

    batch: BatchId
    reason: AbandonReason


@dataclass(frozen=True, slots=True)
class RunnerWakeAt:
    """Send `RunnerWakeUp` at that instant. Replaces any earlier one."""

    at_us: Micros


RunnerEffect: TypeAlias = Compute | Abandon | RunnerWakeAt


class StageRunner:
    """Runs batches of one instance.

    A batch that is next in the booked order starts as soon as the instance is idle. If an
    earlier one is still on its way, a later one waits for its own booked start and then goes
    first: the missing batch may never come.

    Invariants: at most one batch runs; no batch is both waiting and running.
    """

    def __init__(self) -> None:
        self._waiting: dict[BatchId, BatchArrived] = {}
        self._running: BatchId | None = None
        self._next_sequence = 0
        self._cancelled: dict[BatchId, None] = {}

    def handle(self, now_us: Micros, event: RunnerEvent) -> list[RunnerEffect]:
        """Take one event; the driver performs the effects in order."""
        effects: list[RunnerEffect] = []
        match event:
            case BatchArrived():
                self._arrive(event, effects)
            case ComputeFinished(batch):
                if batch == self._running:
                    self._running = None
            case BatchCancelled(batch):
                self._cancel(batch, effects)
            case RunnerWakeUp():
                pass
            case _:
                assert_never(event)
        self._start_next(now_us, effects)
        return effects

    def _arrive(self, event: BatchArrived, effects: list[RunnerEffect]) -> None:
        if event.batch in self._cancelled:
            del self._cancelled[event.batch]
            self._pass_over(event)
            effects.append(Abandon(event.batch, AbandonReason.CANCELLED))
            return
        self._waiting[event.batch] = event

    def _cancel(self, batch: BatchId, effects: list[RunnerEffect]) -> None:
        waiting = self._waiting.pop(batch, None)
        if waiting is not None:
            self._pass_over(waiting)
            effects.append(Abandon(batch, AbandonReason.CANCELLED))
        elif batch != self._running:
            self._cancelled[batch] = None
            if len(self._cancelled) > _REMEMBERED_CANCELLATIONS:
                del self._cancelled[next(iter(self._cancelled))]

    def _start_next(self, now_us: Micros, effects: list[RunnerEffect]) -> None:
        if self._running is not None:
            return
        for late in [each for each in self._waiting.values() if each.abandon_us <= now_us]:
            del self._waiting[late.batch]
            self._pass_over(late)
            effects.append(Abandon(late.batch, AbandonReason.LATE))
        if not self._waiting:
            return
        first = min(self._waiting.values(), key=lambda each: each.sequence)
        if first.sequence > self._next_sequence and first.start_us > now_us:
            effects.append(RunnerWakeAt(first.start_us))
            return
        del self._waiting[first.batch]
        self._pass_over(first)
        self._running = first.batch
        effects.append(Compute(first.batch))

    def _pass_over(self, batch: BatchArrived) -> None:
        self._next_sequence = max(self._next_sequence, batch.sequence + 1)

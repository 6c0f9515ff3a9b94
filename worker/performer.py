"""Drives the stage runner of one instance: frames in, computation in a thread, frames out.

Receiving and sending go on while a batch computes. Decides nothing itself: the order of batches
and whether one is still worth running is the stage runner's business. Where stages differ in batch
size it runs parts: the rows of one may come in several frames, and go on to several instances.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from penstock.domain.ids import BatchId
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.rpc.frames import tensors_of
from penstock.scheduling.parts import Part, next_parts
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
from protos.link_pb2 import FrameHeader, Hop, RunStage, StageReport
from worker.executors.base import Executor, StageResult
from worker.forwarding import Forwarding
from worker.rows import Piece, Rows

_Key: TypeAlias = tuple[int, int]  # a batch, and the place in its route

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """A batch, or a part of one, between its arrival and its report.

    Attributes:
        run: the header that came last, without tensors; its durations count from `arrived_us`.
        pieces: the rows that have come.
    """

    run: RunStage
    arrived_us: Micros
    pieces: list[Piece] = field(default_factory=list)
    started_us: Micros = 0

    @property
    def samples(self) -> int:
        """How many rows it has when all have come."""
        return self.run.route[self.run.stage].count or self.run.samples


class StagePerformer:
    """Runs the batches that arrive at one instance.

    Args:
        executor: loaded.
        compute: one thread; the one that loaded the executor.
        now_us: the clock of this process.
        largest_batch: what the stage was planned and warmed up for.
        rows: of the stage's tensors.
    """

    def __init__(
        self,
        *,
        instance: str,
        executor: Executor,
        compute: ThreadExecutor,
        forwarding: Forwarding,
        now_us: Callable[[], Micros],
        largest_batch: int,
        rows: Rows,
    ) -> None:
        self._instance = instance
        self._executor = executor
        self._compute = compute
        self._forwarding = forwarding
        self._now_us = now_us
        self._largest_batch = largest_batch
        self._rows = rows
        self._runner = StageRunner()
        self._held: dict[_Key, _Held] = {}
        self._running: asyncio.Future[StageResult] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        """Take one frame from a link."""
        match header.WhichOneof("kind"):
            case "run_stage":
                self._arrive(header.run_stage, views)
            case "cancel":
                self._post(BatchCancelled(BatchId(header.cancel.batch_id)))
            case kind:
                _log.warning("%s sent a %s, which an instance does not take", sender, kind)

    def _arrive(self, run: RunStage, views: Sequence[memoryview]) -> None:
        complaint = self._complaint(run)
        if complaint:
            self._report(run, StageReport.FAILED, complaint)
            return
        now_us = self._now_us()
        held = self._held.setdefault((run.batch_id, run.stage), _Held(run, now_us))
        hop = run.route[run.stage]
        rows = run.count if hop.count else run.samples
        held.pieces.append(Piece(run.first, rows, tensors_of(run.tensors, views)))
        run.ClearField("tensors")
        held.run, held.arrived_us = run, now_us
        for place, _ in _following(run):
            self._forwarding.prepare(run.route[place].address, run.route[place].instance_id)
        self._post(
            BatchArrived(
                batch=BatchId(run.batch_id),
                sequence=hop.sequence,
                start_us=now_us + hop.start_in_us,
                abandon_us=now_us + run.abandon_in_us,
                place=run.stage,
                rows=rows,
                of_rows=held.samples,
            )
        )

    def _complaint(self, run: RunStage) -> str:
        """Return why a batch or rows of a part cannot be taken; empty if they can."""
        if run.stage >= len(run.route):
            return f"stage {run.stage} of a route of {len(run.route)}"
        hop = run.route[run.stage]
        samples = hop.count or run.samples
        if not 1 <= samples <= self._largest_batch:
            return f"a batch of {samples}; this stage takes 1 to {self._largest_batch}"
        held = self._held.get((run.batch_id, run.stage))
        if not hop.count:
            return "the batch is here already" if held else ""
        end = run.first + run.count
        if run.count < 1 or run.first < hop.first or end > hop.first + hop.count:
            return f"rows {run.first}-{end - 1} for a part from row {hop.first} of {hop.count} rows"
        pieces = held.pieces if held else ()
        if any(each.first < end and run.first < each.first + each.count for each in pieces):
            return "the rows are here already"
        return ""

    def _post(self, event: RunnerEvent) -> None:
        for effect in self._runner.handle(self._now_us(), event):
            match effect:
                case Compute(batch, place):
                    self._start((batch, place), queued=isinstance(event, ComputeFinished))
                case Abandon(batch, reason, place):
                    held = self._held.pop((batch, place))
                    self._report(held.run, StageReport.ABANDONED, reason.value)
                case RunnerWakeAt(at_us):
                    self._arm(at_us)

    def _start(self, key: _Key, *, queued: bool) -> None:
        held = self._held[key]
        held.started_us = self._now_us()
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._compute, partial(self._run, held, queued))
        self._running.add_done_callback(lambda done: self._finish(key, done))

    def _run(self, held: _Held, queued: bool) -> StageResult:
        """Compute a batch; in the computing thread."""
        return self._executor.run(self._rows.join(held.pieces), held.samples, queued=queued)

    def _finish(self, key: _Key, done: asyncio.Future[StageResult]) -> None:
        """Let the next batch start, then send what this one made."""
        held = self._held.pop(key)
        compute_us = self._now_us() - held.started_us
        self._post(ComputeFinished(BatchId(key[0]), key[1]))
        error = done.exception()
        if error is not None:
            _log.warning("batch %d failed: %s", key[0], error, exc_info=error)
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            self._report(held.run, StageReport.FAILED, detail)
            return
        result = done.result()
        report = self._new_report(
            held.run,
            StageReport.DONE,
            waited_us=held.started_us - held.arrived_us,
            compute_us=compute_us,
            overrun_us=result.overrun_us,
        )
        self._send(held, report, result.tensors)

    def _send(self, held: _Held, report: StageReport, tensors: Sequence[Tensor]) -> None:
        run = held.run
        hop = run.route[run.stage]
        following = _following(run)
        if not following:
            self._forwarding.result(report, tensors, hop.first, hop.count)
            return
        now_us = self._now_us()
        route = _shortened(run.route, now_us - held.arrived_us)
        for place, rows in following:
            onward = _onward(run, now_us - held.arrived_us, place, route)
            sent = tensors
            if rows is not None:
                onward.first, onward.count = rows.first, rows.count
                sent = self._rows.cut(tensors, rows.first - hop.first, rows.count)
            self._forwarding.batch(onward, sent, now_us)
        self._forwarding.report(report)

    def _report(self, run: RunStage, outcome: StageReport.Outcome, detail: str) -> None:
        self._forwarding.report(self._new_report(run, outcome, detail=detail))

    def _new_report(
        self,
        run: RunStage,
        outcome: StageReport.Outcome,
        *,
        detail: str = "",
        waited_us: Micros = 0,
        compute_us: Micros = 0,
        overrun_us: Micros = 0,
    ) -> StageReport:
        return StageReport(
            batch_id=run.batch_id,
            stage=run.stage,
            instance_id=self._instance,
            outcome=outcome,
            waited_us=waited_us,
            compute_us=compute_us,
            overrun_us=overrun_us,
            detail=detail,
        )

    def _arm(self, at_us: Micros) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, at_us - self._now_us()) / US_PER_SECOND
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._post, RunnerWakeUp())


def _following(run: RunStage) -> list[tuple[int, Part | None]]:
    """Return the places that what is computed goes to, and which rows of it: None stands for all.

    An empty list: it goes to the frontend.
    """
    if not run.route[run.stage].count:
        return [(run.stage + 1, None)] if run.stage + 1 < len(run.route) else []
    parts = [Part(hop.stage, hop.first, hop.count) for hop in run.route]
    return [*next_parts(parts, run.stage)]


def _shortened(route: Iterable[Hop], passed_us: Micros) -> list[Hop]:
    """Return a route with its durations shortened by the time spent here."""
    return [
        Hop(
            instance_id=hop.instance_id,
            address=hop.address,
            start_in_us=max(0, hop.start_in_us - passed_us),
            sequence=hop.sequence,
            stage=hop.stage,
            first=hop.first,
            count=hop.count,
        )
        for hop in route
    ]


def _onward(run: RunStage, passed_us: Micros, place: int, route: Iterable[Hop]) -> RunStage:
    """Return the batch for a hop that follows."""
    return RunStage(
        batch_id=run.batch_id,
        model=run.model,
        samples=run.samples,
        stage=place,
        route=route,
        reply_to=run.reply_to,
        abandon_in_us=max(0, run.abandon_in_us - passed_us),
    )

"""Drives the stage runner of one instance: frames in, computation in a thread, frames out.

Receiving and sending go on while a batch computes. Decides nothing itself: the order of batches
and whether one is still worth running is the stage runner's business. Where stages differ in batch
size it runs parts. The rows of what it runs may come in several frames, from several senders, and
go on to several receivers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from penstock.domain.devices import DeviceBytes, DeviceTensor
from penstock.domain.ids import BatchId
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.rpc.frames import NOWHERE, tensors_of
from penstock.rpc.links import LinkLost
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
from protos.link_pb2 import BatchResult, FrameHeader, Hop, RunStage, StageReport
from worker.computing import Copied, new_computing
from worker.executors.base import Executor, Handover, StageResult
from worker.forwarding import Forwarding
from worker.rows import Piece, Rows

_BEGUN = 3  # batches copied to the device before they start; more would only take memory there

_Key: TypeAlias = tuple[int, int]  # a batch, and the place in its route

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """A batch, or a part of one, between its arrival and its report.

    Attributes:
        own: the rows that it has when all have come.
        run: the header that came last, without tensors; its durations count from `arrived_us`.
        pieces: the rows that have come.
        copied: what was begun with it before it starts.
        accepted_us: when the next batch could start.
    """

    own: Part
    run: RunStage
    arrived_us: Micros
    pieces: list[Piece] = field(default_factory=list)
    started_us: Micros = 0
    accepted_us: Micros = 0
    copied: Copied | None = None

    @property
    def complete(self) -> bool:
        """Whether all of its rows have come."""
        return sum([each.count for each in self.pieces]) == self.own.count


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
        self._computing = new_computing(executor, compute)
        self._forwarding = forwarding
        self._now_us = now_us
        self._largest_batch = largest_batch
        self._rows = rows
        self._runner = StageRunner()
        self._held: dict[_Key, _Held] = {}
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

    def on_device_frame(
        self,
        sender: str,
        header: FrameHeader,
        views: Sequence[memoryview],
        places: Mapping[int, DeviceBytes],
    ) -> None:
        """Take one frame from a link, of whose tensors some lie on the device."""
        if header.HasField("run_stage"):
            self._arrive(header.run_stage, views, places)
        else:
            _log.warning("%s sent tensors on the device that are no batch", sender)

    def _arrive(
        self,
        run: RunStage,
        views: Sequence[memoryview],
        places: Mapping[int, DeviceBytes] = NOWHERE,
    ) -> None:
        if run.stage >= len(run.route):
            detail = f"stage {run.stage} of a route of {len(run.route)}"
            self._report(run, StageReport.FAILED, detail)
            return
        own = _own(run)
        brought = Part(own.stage, run.first, run.count) if run.count else own
        key = (run.batch_id, run.stage)
        held = self._held.get(key)
        complaint = self._complaint(own, brought, held)
        if complaint:
            self._report(run, StageReport.FAILED, complaint)
            return
        tensors = tensors_of(run.tensors, views, places)
        now_us = self._now_us()
        if held is None:
            held = self._held[key] = _Held(own, run, now_us)
        hop = run.route[run.stage]
        held.pieces.append(Piece(brought.first, brought.count, tensors))
        run.ClearField("tensors")
        held.run, held.arrived_us = run, now_us
        self._prepare(run)
        self._copy_in(held)
        self._post(
            BatchArrived(
                batch=BatchId(run.batch_id),
                sequence=hop.sequence,
                start_us=now_us + hop.start_in_us,
                abandon_us=now_us + run.abandon_in_us,
                place=run.stage,
                rows=brought.count,
                of_rows=own.count,
            )
        )

    def _prepare(self, run: RunStage) -> None:
        """Open the links that what is computed goes to."""
        following = _following(run)
        for place, _ in following:
            self._forwarding.prepare(run.route[place].address, run.route[place].instance_id)
        if not following:
            for reply in run.replies:
                self._forwarding.prepare(reply.address)

    def _complaint(self, own: Part, brought: Part, held: _Held | None) -> str:
        """Return why a batch or rows of a part cannot be taken; empty if they can."""
        if not 1 <= own.count <= self._largest_batch:
            return f"a batch of {own.count}; this stage takes 1 to {self._largest_batch}"
        if brought.first < own.first or brought.end > own.end:
            rows = f"rows {brought.first}-{brought.end - 1}"
            return f"{rows} for a part from row {own.first} of {own.count} rows"
        if held is not None and any(_overlap(each, brought) for each in held.pieces):
            return "the batch is here already" if brought is own else "the rows are here already"
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

    def _copy_in(self, held: _Held) -> None:
        """Begin with a batch that waits, if few others have been begun with."""
        if not held.complete:
            return
        begun = sum([each.copied is not None for each in self._held.values()])
        if begun < _BEGUN:
            held.copied = self._computing.copy_in(self._inputs(held), held.own.count)

    def _inputs(self, held: _Held) -> Callable[[], Sequence[Tensor]]:
        return partial(self._rows.join, held.pieces)

    def _start(self, key: _Key, *, queued: bool) -> None:
        held = self._held[key]
        held.started_us = self._now_us()
        copied, held.copied = held.copied, None
        started = self._computing.start(
            *(self._inputs(held), held.own.count, copied),
            onward=partial(self._handovers, held),
            queued=queued,
        )
        if started.result.done():  # the answer leaves first; the next batch starts a turn later
            held.accepted_us = self._now_us()
            self._finish(key, started.result)
            asyncio.get_running_loop().call_soon(self._start_another, key)
            return
        started.accepted.add_done_callback(lambda _: self._accept(key))
        started.result.add_done_callback(lambda done: self._finish(key, done))

    def _accept(self, key: _Key) -> None:
        """Take it that the device can begin with the next batch."""
        self._held[key].accepted_us = self._now_us()
        self._start_another(key)

    def _start_another(self, key: _Key) -> None:
        self._post(ComputeFinished(BatchId(key[0]), key[1]))

    def _finish(self, key: _Key, done: asyncio.Future[StageResult]) -> None:
        """Send what a batch made."""
        held = self._held.pop(key)
        error = done.exception()
        if error is not None:
            _log.warning("batch %d failed: %s", key[0], error, exc_info=error)
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            lost = isinstance(error, LinkLost)  # with inputs that lay on the sender's device
            self._report(held.run, StageReport.FAILED, detail, retriable=lost)
            return
        result = done.result()
        compute_us = result.compute_us
        if compute_us is None:
            compute_us = held.accepted_us - held.started_us
        else:  # the device began with it when it was done with the one before
            held.started_us = max(held.started_us, self._now_us() - compute_us)
        report = self._new_report(
            held.run,
            StageReport.DONE,
            waited_us=held.started_us - held.arrived_us,
            compute_us=compute_us,
            overrun_us=result.overrun_us,
        )
        self._send(held, report, result)

    def _handovers(self, held: _Held) -> Sequence[Handover]:
        """Return what of a batch need not come to host memory."""
        own, route = held.own, held.run.route
        return [
            Handover(
                self._forwarding.room(route[place].address),
                rows.first - own.first if rows is not None else 0,
                rows.count if rows is not None else own.count,
            )
            for place, rows in _following(held.run)
        ]

    def _send(self, held: _Held, report: StageReport, result: StageResult) -> None:
        run, now_us, tensors = held.run, self._now_us(), result.tensors
        following = _following(run)
        if not following:
            self._answer(held, report, tensors, now_us)
            return
        own = held.own
        route = _shortened(run.route, now_us - held.arrived_us)
        handed = result.handed or (None,) * len(following)
        for (place, rows), on_device in zip(following, handed, strict=True):
            onward = _onward(run, now_us - held.arrived_us, place, route)
            sent: Sequence[Tensor | DeviceTensor] = on_device or tensors
            if rows is not None:
                onward.first, onward.count = rows.first, rows.count
                first = rows.first - own.first
                sent = on_device or self._rows.cut(tensors, first, rows.count)
            self._forwarding.batch(onward, sent, now_us)
        self._forwarding.report(report)

    def _answer(
        self, held: _Held, report: StageReport, tensors: Sequence[Tensor], now_us: Micros
    ) -> None:
        """Send what the last stage made to the frontend, or to each acceptor its rows."""
        run, own = held.run, held.own
        hop = run.route[run.stage]
        result = BatchResult(batch_id=run.batch_id, report=report, first=hop.first, count=hop.count)
        if not run.replies:
            self._forwarding.result(result, tensors)
            return
        abandon_us = held.arrived_us + run.abandon_in_us
        for reply in run.replies:
            rows = own.rows_of(Part(own.stage, reply.first, reply.count))
            if rows.count < 1:
                continue
            result.first, result.count = rows.first, rows.count
            sent = self._rows.cut(tensors, rows.first - own.first, rows.count)
            place = len(run.route)  # no hop's: what is lost behind the last is never known as done
            self._forwarding.reply(reply.address, result, sent, place, abandon_us, now_us)
            result = BatchResult(batch_id=run.batch_id)

    def _report(
        self, run: RunStage, outcome: StageReport.Outcome, detail: str, *, retriable: bool = False
    ) -> None:
        report = self._new_report(run, outcome, detail=detail, retriable=retriable)
        self._forwarding.report(report)

    def _new_report(
        self,
        run: RunStage,
        outcome: StageReport.Outcome,
        *,
        detail: str = "",
        waited_us: Micros = 0,
        compute_us: Micros = 0,
        overrun_us: Micros = 0,
        retriable: bool = False,
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
            retriable=retriable,
        )

    def _arm(self, at_us: Micros) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, at_us - self._now_us()) / US_PER_SECOND
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._post, RunnerWakeUp())


def _own(run: RunStage) -> Part:
    """Return the rows that the receiver's hop runs."""
    hop = run.route[run.stage]
    return Part(hop.stage, hop.first, hop.count or run.samples)


def _overlap(piece: Piece, rows: Part) -> bool:
    return piece.first < rows.end and rows.first < piece.first + piece.count


def _following(run: RunStage) -> list[tuple[int, Part | None]]:
    """Return the places that what is computed goes to, and which rows of it: None stands for all.

    An empty list: it goes to the frontend, or to its acceptors.
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
        replies=run.replies,
    )

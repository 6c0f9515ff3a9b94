"""Drives the stage runner of one instance: frames in, computation in a thread, frames out.

Receiving and sending go on while a batch computes. Decides nothing itself: the order of batches
and whether one is still worth running is the stage runner's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as ThreadExecutor
from dataclasses import dataclass
from functools import partial

from penstock.domain.ids import BatchId
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.rpc.frames import tensors_of
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

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    """A batch between its arrival and its report.

    Attributes:
        run: as it arrived, without tensors; its durations count from `arrived_us`.
    """

    run: RunStage
    tensors: tuple[Tensor, ...]
    arrived_us: Micros
    started_us: Micros = 0


class StagePerformer:
    """Runs the batches that arrive at one instance.

    Args:
        executor: loaded.
        compute: one thread; the one that loaded the executor.
        now_us: the clock of this process.
        largest_batch: what the stage was planned and warmed up for.
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
    ) -> None:
        self._instance = instance
        self._executor = executor
        self._compute = compute
        self._forwarding = forwarding
        self._now_us = now_us
        self._largest_batch = largest_batch
        self._runner = StageRunner()
        self._held: dict[BatchId, _Held] = {}
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
        tensors = tensors_of(run.tensors, views)
        run.ClearField("tensors")
        self._held[BatchId(run.batch_id)] = _Held(run, tensors, now_us)
        if run.stage + 1 < len(run.route):
            following = run.route[run.stage + 1]
            self._forwarding.prepare(following.address, following.instance_id)
        hop = run.route[run.stage]
        self._post(
            BatchArrived(
                batch=BatchId(run.batch_id),
                sequence=hop.sequence,
                start_us=now_us + hop.start_in_us,
                abandon_us=now_us + run.abandon_in_us,
            )
        )

    def _complaint(self, run: RunStage) -> str:
        """Return why a batch cannot be taken; empty if it can."""
        if run.stage >= len(run.route):
            return f"stage {run.stage} of a route of {len(run.route)}"
        if not 1 <= run.samples <= self._largest_batch:
            return f"a batch of {run.samples}; this stage takes 1 to {self._largest_batch}"
        if run.batch_id in self._held:
            return "the batch is here already"
        return ""

    def _post(self, event: RunnerEvent) -> None:
        for effect in self._runner.handle(self._now_us(), event):
            match effect:
                case Compute(batch):
                    self._start(batch, queued=isinstance(event, ComputeFinished))
                case Abandon(batch, reason):
                    held = self._held.pop(batch)
                    self._report(held.run, StageReport.ABANDONED, reason.value)
                case RunnerWakeAt(at_us):
                    self._arm(at_us)

    def _start(self, batch: BatchId, *, queued: bool) -> None:
        held = self._held[batch]
        held.started_us = self._now_us()
        loop = asyncio.get_running_loop()
        run = partial(self._executor.run, held.tensors, held.run.samples, queued=queued)
        self._running = loop.run_in_executor(self._compute, run)
        self._running.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: BatchId, done: asyncio.Future[StageResult]) -> None:
        """Let the next batch start, then send what this one made."""
        held = self._held.pop(batch)
        compute_us = self._now_us() - held.started_us
        self._post(ComputeFinished(batch))
        error = done.exception()
        if error is not None:
            _log.warning("batch %d failed: %s", batch, error, exc_info=error)
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
        if run.stage + 1 == len(run.route):
            self._forwarding.result(report, tensors)
            return
        now_us = self._now_us()
        self._forwarding.batch(_onward(run, now_us - held.arrived_us), tensors, now_us)
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


def _onward(run: RunStage, passed_us: Micros) -> RunStage:
    """Return the batch for the next hop, its durations shortened by the time spent here."""
    return RunStage(
        batch_id=run.batch_id,
        model=run.model,
        samples=run.samples,
        stage=run.stage + 1,
        route=[
            Hop(
                instance_id=hop.instance_id,
                address=hop.address,
                start_in_us=max(0, hop.start_in_us - passed_us),
                sequence=hop.sequence,
            )
            for hop in run.route
        ],
        reply_to=run.reply_to,
        abandon_in_us=max(0, run.abandon_in_us - passed_us),
    )

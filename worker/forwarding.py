"""Where an instance's frames go: the next instance of a route, and the frontend.

Opens a link to the next instance when its first batch arrives, so that it is open when the batch
is computed. A next instance that is lost is told to the frontend, batch by batch; what the
frontend already knows does no harm. Knows nothing of computing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.domain.tensors import Buffer, Tensor
from penstock.domain.units import Micros
from penstock.rpc.frames import tensor_header
from penstock.rpc.links import LinkFull, LinkLost, LinkSender
from protos.link_pb2 import BatchResult, FrameHeader, RunStage, StageReport, TensorHeader

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Next:
    """A link to a next instance, with the batches that may still be on it or beyond."""

    instance: str
    link: LinkSender
    sent: deque[_Sent] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Sent:
    batch: int
    stage: int
    abandon_us: Micros


class Forwarding:
    """Sends reports, results and batches.

    Args:
        instance: our own name.
        frontend: the link that reports and results go to.
    """

    def __init__(self, instance: str, frontend: LinkSender) -> None:
        self._instance = instance
        self._frontend = frontend
        self._next: dict[str, _Next] = {}

    def prepare(self, address: str, instance: str) -> None:
        """Open the link to a next instance, unless it is open."""
        if address in self._next:
            return
        link = LinkSender(address, self._instance)
        held = _Next(instance, link)
        self._next[address] = held
        link.closed.add_done_callback(lambda closed: self._lose(address, held, closed))

    def report(self, report: StageReport) -> None:
        """Tell the frontend what happened to a batch."""
        self._to_frontend(FrameHeader(report=report), ())

    def result(
        self, report: StageReport, tensors: Sequence[Tensor], first: int = 0, count: int = 0
    ) -> None:
        """Send the last stage's outputs to the frontend, and its report with them.

        Args:
            report: of the stage, or of a part of it.
            tensors: what it made.
            first: of a part: its first row.
            count: of a part: its rows; 0: the whole batch.
        """
        header = BatchResult(
            batch_id=report.batch_id,
            tensors=_headers(tensors),
            report=report,
            first=first,
            count=count,
        )
        self._to_frontend(FrameHeader(result=header), [each.data for each in tensors])

    def batch(self, run: RunStage, tensors: Sequence[Tensor], now_us: Micros) -> None:
        """Send a batch, or rows of a part, to the instance whose turn it is.

        Args:
            run: with `stage` already at the receiver and all durations from now on.
            tensors: its inputs there.
            now_us: the present instant.
        """
        hop = run.route[run.stage]
        self.prepare(hop.address, hop.instance_id)
        held = self._next[hop.address]
        run.tensors.extend(_headers(tensors))
        sent = _Sent(run.batch_id, run.stage, now_us + run.abandon_in_us)
        try:
            held.link.send_nowait(FrameHeader(run_stage=run), [each.data for each in tensors])
        except (LinkLost, LinkFull) as error:
            self._report_lost(sent, hop.instance_id, str(error))
            return
        while held.sent and held.sent[0].abandon_us <= now_us:
            held.sent.popleft()
        held.sent.append(sent)

    def _lose(self, address: str, held: _Next, closed: asyncio.Future[str]) -> None:
        if self._next.get(address) is held:
            del self._next[address]
        for sent in held.sent:
            self._report_lost(sent, held.instance, f"link to {address}: {closed.result()}")

    def _report_lost(self, sent: _Sent, instance: str, detail: str) -> None:
        self.report(
            StageReport(
                batch_id=sent.batch,
                stage=sent.stage,
                instance_id=instance,
                outcome=StageReport.FAILED,
                detail=detail,
                retriable=True,
            )
        )

    def _to_frontend(self, header: FrameHeader, parts: Sequence[Buffer]) -> None:
        try:
            self._frontend.send_nowait(header, parts)
        except (LinkLost, LinkFull) as error:
            _log.warning("not sent: %s", error)


def _headers(tensors: Sequence[Tensor]) -> list[TensorHeader]:
    return [tensor_header(each.name, each.datatype, each.shape, [each.data]) for each in tensors]

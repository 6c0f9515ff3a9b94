"""Where an instance's frames go: the next instance of a route, the frontend, its acceptors.

Opens a link to the next instance or acceptor when its first batch arrives, so that it is open when
the batch is computed. One that is lost is told to the frontend, batch by batch; what the frontend
already knows does no harm. Knows nothing of computing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from penstock.domain.devices import DeviceRoom, DeviceTensor
from penstock.domain.tensors import Buffer, Tensor
from penstock.domain.units import Micros
from penstock.rpc.device_frames import announce_all, parts_of, withdraw
from penstock.rpc.links import LinkFull, LinkLost, LinkSender, Neighbours
from penstock.rpc.local_offer import DeviceSource
from protos.link_pb2 import (
    BatchResult,
    FrameHeader,
    LinkOpened,
    RunStage,
    StageReport,
)

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Next:
    """A link to a next instance or acceptor, with the batches that may be on it or beyond."""

    name: str
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
        neighbours: the other instances of this process.
        device: where tensors may be left for other instances; None: there is no device.
    """

    def __init__(
        self,
        instance: str,
        frontend: LinkSender,
        neighbours: Neighbours | None = None,
        device: DeviceSource | None = None,
    ) -> None:
        self._instance = instance
        self._frontend = frontend
        self._neighbours = neighbours
        self._device = device
        self._telling: set[asyncio.Task[None]] = set()
        self._next: dict[str, _Next] = {}

    def prepare(self, address: str, name: str = "") -> None:
        """Open the link to a next instance or acceptor, unless it is open.

        Args:
            address: of its link.
            name: of an instance; an acceptor, which has no device, has none.
        """
        if address in self._next:
            return
        device = self._device if name else None
        link = LinkSender(address, self._instance, neighbours=self._neighbours, device=device)
        held = _Next(name or address, link)
        self._next[address] = held
        link.closed.add_done_callback(lambda closed: self._lose(address, held, closed))
        telling = asyncio.create_task(self._tell_kind(held))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    def room(self, address: str) -> DeviceRoom | None:
        """Return where tensors for an instance may stay on the device; None: nowhere."""
        held = self._next.get(address)
        return held.link.pool if held is not None else None

    async def close(self) -> None:
        """End the links that were opened here; what was sent is no loss."""
        ended = [*self._next.values()]
        self._next.clear()
        for held in ended:
            held.sent.clear()
        await asyncio.gather(*[held.link.close() for held in ended])

    def report(self, report: StageReport) -> None:
        """Tell the frontend what happened to a batch."""
        self._to_frontend(FrameHeader(report=report), ())

    def result(self, result: BatchResult, tensors: Sequence[Tensor]) -> None:
        """Send the last stage's outputs to the frontend, and its report with them."""
        header = FrameHeader(result=result)
        announce_all(header.result.tensors, tensors, None)
        self._to_frontend(header, parts_of(tensors))

    def reply(
        self,
        address: str,
        result: BatchResult,
        tensors: Sequence[Tensor],
        place: int,
        abandon_us: Micros,
        now_us: Micros,
    ) -> None:
        """Send an acceptor its rows of the last stage's outputs.

        Args:
            address: of the acceptor.
            result: says which rows.
            tensors: these rows.
            place: behind the last hop of the route.
            abandon_us: from then on nobody waits for them.
            now_us: the present instant.
        """
        self.prepare(address)
        sent = _Sent(result.batch_id, place, abandon_us)
        self._send(address, sent, FrameHeader(result=result), tensors, now_us)

    def batch(
        self, run: RunStage, tensors: Sequence[Tensor | DeviceTensor], now_us: Micros
    ) -> None:
        """Send a batch, or rows of it, to the instance whose turn it is.

        Args:
            run: with `stage` already at the receiver and all durations from now on.
            tensors: its inputs there.
            now_us: the present instant.
        """
        hop = run.route[run.stage]
        self.prepare(hop.address, hop.instance_id)
        sent = _Sent(run.batch_id, run.stage, now_us + run.abandon_in_us)
        self._send(hop.address, sent, FrameHeader(run_stage=run), tensors, now_us)

    def _send(
        self,
        address: str,
        sent: _Sent,
        header: FrameHeader,
        tensors: Sequence[Tensor | DeviceTensor],
        now_us: Micros,
    ) -> None:
        held = self._next[address]
        announced = header.run_stage if header.HasField("run_stage") else header.result
        pool = held.link.pool
        try:
            announce_all(announced.tensors, tensors, pool)
            held.link.send_nowait(header, parts_of(tensors))
        except (LinkLost, LinkFull) as error:
            withdraw(announced.tensors, pool)
            self._report_lost(sent, held.name, str(error))
            return
        while held.sent and held.sent[0].abandon_us <= now_us:
            held.sent.popleft()
        held.sent.append(sent)

    async def _tell_kind(self, held: _Next) -> None:
        """Tell the frontend how a new link's bytes travel."""
        with suppress(LinkLost):  # which is told elsewhere
            await held.link.opened()
            kind = held.link.kind
            opened = LinkOpened(receiver=held.name, kind=kind.value if kind else "")
            self._to_frontend(FrameHeader(link_opened=opened), ())

    def _lose(self, address: str, held: _Next, closed: asyncio.Future[str]) -> None:
        if self._next.get(address) is held:
            del self._next[address]
        for sent in held.sent:
            self._report_lost(sent, held.name, f"link to {address}: {closed.result()}")

    def _report_lost(self, sent: _Sent, name: str, detail: str) -> None:
        self.report(
            StageReport(
                batch_id=sent.batch,
                stage=sent.stage,
                instance_id=name,
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

"""Does what the dispatcher wants done with batches, and tells it what came of them.

Holds one link to every instance and takes the frames that instances send back. Knows nothing of
plans, workers or policies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from frontend.ingress import JoinedTensor
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import BatchId, InstanceId
from penstock.domain.requests import Slice
from penstock.domain.tensors import Tensor
from penstock.domain.units import Micros
from penstock.rpc.frames import tensor_header, tensors_of
from penstock.rpc.links import FRONTEND, LinkFull, LinkLost, LinkSender
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    Hop,
    PartHop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceLost,
    StageFinished,
)
from penstock.scheduling.parts import slices_of
from protos import link_pb2
from protos.link_pb2 import BatchResult, FrameHeader, RunStage, StageReport

_log = logging.getLogger(__name__)


class Payloads(Protocol):
    """Where the tensors of requests come from and go to."""

    def gather(self, slices: Sequence[Slice]) -> Sequence[JoinedTensor]:
        """Return the inputs of a batch."""
        ...

    def scatter(self, slices: Sequence[Slice], tensors: Sequence[Tensor]) -> None:
        """Hand the rows of a batch's outputs to their requests.

        Raises:
            InvalidInput: the outputs do not fit.
        """
        ...

    def finish(self, effect: CompleteRequest) -> None:
        """Answer a request whose samples were all scattered."""
        ...

    def drop(self, effect: DropRequest) -> None:
        """End a request without an answer."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch whose rows have not all come back.

    Attributes:
        missing: first rows of what the last stage has yet to send: its parts, or the batch.
        done: hops of its route that have reported.
    """

    slices: tuple[Slice, ...]
    missing: set[int]
    done: set[int] = field(default_factory=set)


class Performer:
    """Performs effects; never waits.

    A batch is known from its `RunBatch` until its result or failure is here or it is cancelled.
    What comes of a batch that is not known any more reaches no request. One that runs in parts is
    back when all parts of its last stage are.

    Args:
        payloads: the open requests.
        post: hands an event to the dispatcher.
        now_us: the dispatcher's clock.
        reply_to: host:port that instances send results to.
        overran: told by how much a stage was slower than the device it emulates.
    """

    def __init__(
        self,
        payloads: Payloads,
        post: Callable[[Event], None],
        now_us: Callable[[], Micros],
        reply_to: str,
        overran: Callable[[InstanceId, Micros], None] | None = None,
    ) -> None:
        self._payloads = payloads
        self._post = post
        self._now_us = now_us
        self._reply_to = reply_to
        self._overran = overran
        self._links: dict[InstanceId, LinkSender] = {}
        self._flights: dict[BatchId, _Flight] = {}

    # Effects

    def perform(self, effect: Effect) -> None:
        """Do what the dispatcher asks for. May post events."""
        match effect:
            case RunBatch():
                self._run(effect)
            case CompleteRequest():
                self._payloads.finish(effect)
            case DropRequest():
                self._payloads.drop(effect)
            case CancelBatch(batch, instances):
                self._cancel(batch, instances)
            case WakeAt():
                pass  # the driver's own
            case _:
                assert_never(effect)

    def _run(self, effect: RunBatch) -> None:
        for hop in effect.route:
            if hop.instance not in self._links:
                self._post(InstanceLost(hop.instance))
                return
        samples = sum(each.count for each in effect.slices)
        route = self._wire_route(effect)
        self._flights[effect.batch] = _Flight(effect.slices, _last_rows(effect.route))
        for place, hop in enumerate(effect.route):
            if isinstance(hop, PartHop) and hop.stage == 0:
                slices = slices_of(effect.slices, hop.first, hop.count)
            elif place == 0:
                slices = effect.slices
            else:
                break
            if not self._send(effect, place, route, samples, slices):
                return

    def _send(
        self,
        effect: RunBatch,
        place: int,
        route: Sequence[link_pb2.Hop],
        samples: int,
        slices: Sequence[Slice],
    ) -> bool:
        """Send a batch, or a part, to the first stage; return whether that could be done."""
        hop = effect.route[place]
        now_us = self._now_us()
        inputs = self._payloads.gather(slices)
        run = RunStage(
            batch_id=effect.batch,
            model=effect.model,
            samples=samples,
            stage=place,
            route=route,
            reply_to=self._reply_to,
            abandon_in_us=max(0, effect.abandon_us - now_us),
            tensors=[tensor_header(*each) for each in inputs],
        )
        if isinstance(hop, PartHop):
            run.first, run.count = hop.first, hop.count
        try:
            self._links[hop.instance].send_nowait(
                FrameHeader(run_stage=run), [part for each in inputs for part in each.parts]
            )
        except LinkLost:
            self._post(InstanceLost(hop.instance))
            return False
        except LinkFull as error:
            self._fail(effect.batch, str(error), retriable=True)
            return False
        return True

    def _wire_route(self, effect: RunBatch) -> list[link_pb2.Hop]:
        now_us = self._now_us()
        route: list[link_pb2.Hop] = []
        for hop in effect.route:
            sent = link_pb2.Hop(
                instance_id=hop.instance,
                address=self._links[hop.instance].address,
                start_in_us=max(0, hop.start_us - now_us),
                sequence=hop.sequence,
            )
            if isinstance(hop, PartHop):
                sent.stage, sent.first, sent.count = hop.stage, hop.first, hop.count
            route.append(sent)
        return route

    def _cancel(self, batch: BatchId, instances: Iterable[InstanceId]) -> None:
        self._flights.pop(batch, None)
        header = FrameHeader(cancel=link_pb2.CancelBatch(batch_id=batch))
        for instance in instances:
            if instance in self._links:
                with suppress(LinkLost, LinkFull):  # it runs a batch in vain, no more
                    self._links[instance].send_nowait(header)

    # Links

    async def connect(self, instance: InstanceId, address: str) -> None:
        """Open the link to an instance, in place of any earlier one.

        Raises:
            LinkLost: it cannot be reached.
        """
        self.disconnect(instance)
        link = LinkSender(address, FRONTEND)
        try:
            await link.opened()
        except BaseException:
            link.end()
            raise
        self._links[instance] = link
        link.closed.add_done_callback(lambda _: self._lose(instance, link))

    def disconnect(self, instance: InstanceId) -> None:
        """End the link to an instance, if there is one; posts nothing."""
        link = self._links.pop(instance, None)
        if link is not None:
            link.end()

    async def close(self) -> None:
        """End all links; posts nothing."""
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(link.close() for link in links))

    def on_peer_lost(self, sender: str) -> None:
        """Take the loss of the link from an instance: without it there are no results."""
        link = self._links.get(InstanceId(sender))
        if link is not None:
            link.end("the instance's link to us is lost")

    def _lose(self, instance: InstanceId, link: LinkSender) -> None:
        if self._links.get(instance) is not link:
            return
        del self._links[instance]
        _log.warning("link to %s at %s: %s", instance, link.address, link.closed.result())
        self._post(InstanceLost(instance))

    # Frames

    def on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        """Take one frame from an instance."""
        match header.WhichOneof("kind"):
            case "report":
                self._report(header.report)
            case "result":
                self._result(header.result, views)
            case kind:
                _log.warning("%s sent a %s, which a frontend does not take", sender, kind)

    def _report(self, report: StageReport) -> None:
        batch = BatchId(report.batch_id)
        match report.outcome:
            case StageReport.DONE:
                if report.overrun_us > 0 and self._overran is not None:
                    self._overran(InstanceId(report.instance_id), report.overrun_us)
                if batch in self._flights:
                    self._flights[batch].done.add(report.stage)
                self._post(
                    StageFinished(batch=batch, stage=report.stage, compute_us=report.compute_us)
                )
            case StageReport.ABANDONED:
                detail = f"{report.instance_id} gave the batch up: {report.detail}"
                self._fail(batch, detail, too_late=True)
            case _:
                flight = self._flights.get(batch)
                if report.retriable and flight is not None and report.stage in flight.done:
                    return  # its sender lost the instance after that had sent the batch on
                detail = f"{report.instance_id}: {report.detail}"
                self._fail(batch, detail, retriable=report.retriable)

    def _result(self, result: BatchResult, views: Sequence[memoryview]) -> None:
        if result.HasField("report"):
            self._report(result.report)
        batch = BatchId(result.batch_id)
        flight = self._flights.get(batch)
        if flight is None:
            # A cancelled one still holds bookings. Parts are free as soon as each has reported.
            if not result.count:
                self._post(BatchFinished(batch))
            return
        if result.first not in flight.missing:
            return
        slices = flight.slices
        if result.count:
            slices = slices_of(slices, result.first, result.count)
        try:
            self._payloads.scatter(slices, tensors_of(result.tensors, views))
        except InvalidInput as error:
            self._fail(batch, str(error))
            return
        flight.missing.discard(result.first)
        if not flight.missing:
            del self._flights[batch]
            self._post(BatchFinished(batch))

    def _fail(
        self, batch: BatchId, detail: str, *, too_late: bool = False, retriable: bool = False
    ) -> None:
        self._flights.pop(batch, None)
        self._post(BatchFailed(batch=batch, detail=detail, too_late=too_late, retriable=retriable))


def _last_rows(route: Sequence[PartHop | Hop]) -> set[int]:
    """Return the first row of each part of the last stage; of a whole batch: 0."""
    last = route[-1]
    if not isinstance(last, PartHop):
        return {0}
    return {hop.first for hop in route if isinstance(hop, PartHop) and hop.stage == last.stage}

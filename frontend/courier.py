"""Carries rows: those of a batch's requests to the first stage, those of its results back.

A batch may hold requests of several processes; then each has a courier, with an errand for its own
rows. Knows links and open requests; nothing of plans, reports or the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from frontend.ingress import JoinedTensor
from frontend.instance_links import InstanceLinks
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import BatchId, InstanceId, ModelName
from penstock.domain.requests import Slice, samples_of
from penstock.domain.tensors import Tensor
from penstock.domain.units import Micros
from penstock.rpc.frames import announce, tensors_of
from penstock.rpc.links import LinkFull, LinkLost
from penstock.scheduling.effects import CompleteRequest, DropRequest, Hop, PartHop
from penstock.scheduling.parts import Part, slices_of
from protos import link_pb2
from protos.link_pb2 import BatchResult, FrameHeader, RunStage


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Rows [first, first + count) of a batch's result go to this link."""

    address: str
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What one courier has to do for a batch.

    Attributes:
        samples: of the whole batch.
        slices: the courier's own, in order; all of them, unless there are replies.
        first: the first row that is the courier's; its rows follow each other.
        replies: who gets which rows of the result; none: the sender of the batch gets all.
    """

    batch: BatchId
    model: ModelName
    samples: int
    route: tuple[PartHop | Hop, ...]
    slices: tuple[Slice, ...]
    abandon_us: Micros
    first: int = 0
    replies: tuple[Reply, ...] = ()

    @property
    def rows(self) -> Part:
        """The courier's rows."""
        return Part(0, self.first, samples_of(self.slices))


class Returns(Protocol):
    """Is told what came of errands; an errand that has ended is not spoken of again."""

    def delivered(self, batch: BatchId) -> None:
        """All rows are with their requests, or a batch that was given up came back whole."""
        ...

    def failed(self, batch: BatchId, detail: str, *, retriable: bool) -> None:
        """The rows could not be sent, or those that came back do not fit."""
        ...

    def unreachable(self, instance: InstanceId) -> None:
        """There is no link to an instance that rows should go to."""
        ...


@dataclass(slots=True, eq=False)
class _Trip:
    """An errand whose rows have not all come back: the first rows of those that are missing."""

    errand: Errand
    missing: set[int]


class Courier:
    """Runs errands; never waits.

    Args:
        payloads: the open requests of this process.
        links: to the instances.
        now_us: the dispatcher's clock.
        returns: told of every errand's end, except for those that are forgotten.
        reply_to: host:port that instances send results to.
    """

    def __init__(
        self,
        payloads: Payloads,
        links: InstanceLinks,
        now_us: Callable[[], Micros],
        returns: Returns,
        reply_to: str,
    ) -> None:
        self._payloads = payloads
        self._links = links
        self._now_us = now_us
        self._returns = returns
        self._reply_to = reply_to
        self._trips: dict[BatchId, _Trip] = {}

    def carry(self, errand: Errand) -> None:
        """Send the rows of a batch to its first stage."""
        route = self._wire_route(errand.route)
        own = errand.rows
        missing = {rows.first for _, rows in _shares(own, _last_stage(errand))}
        self._trips[errand.batch] = _Trip(errand, missing)
        for place, rows in _shares(own, _first_stage(errand)):
            slices = errand.slices
            if rows.count != own.count:
                slices = slices_of(slices, rows.first - errand.first, rows.count)
            if not self._send(errand, place, route, rows, slices):
                return

    def forget(self, batch: BatchId) -> None:
        """Let no row of a batch that comes from now on reach a request."""
        self._trips.pop(batch, None)

    def take(self, result: BatchResult, views: Sequence[memoryview]) -> None:
        """Take rows that an instance sent back."""
        batch = BatchId(result.batch_id)
        trip = self._trips.get(batch)
        if trip is None:
            # A cancelled one still holds bookings. Parts are free as soon as each has reported.
            if not result.count:
                self._returns.delivered(batch)
            return
        if result.first not in trip.missing:
            return
        errand = trip.errand
        slices = errand.slices
        if result.count:
            slices = slices_of(slices, result.first - errand.first, result.count)
        tensors = tensors_of(result.tensors, views)
        try:
            self._payloads.scatter(slices, tensors)
        except InvalidInput as error:
            self._fail(batch, str(error))
            return
        trip.missing.discard(result.first)
        if not trip.missing:
            del self._trips[batch]
            self._returns.delivered(batch)

    def _send(
        self,
        errand: Errand,
        place: int,
        route: Sequence[link_pb2.Hop],
        rows: Part,
        slices: Sequence[Slice],
    ) -> bool:
        """Send rows to an instance of the first stage; return whether that could be done."""
        hop = errand.route[place]
        inputs = self._payloads.gather(slices)
        run = RunStage(
            batch_id=errand.batch,
            model=errand.model,
            samples=errand.samples,
            stage=place,
            route=route,
            reply_to=self._reply_to,
            abandon_in_us=max(0, errand.abandon_us - self._now_us()),
        )
        for each in inputs:
            announce(run.tensors, *each)
        if isinstance(hop, PartHop) or errand.replies:
            run.first, run.count = rows.first, rows.count
            run.replies.extend(_wire_replies(errand.replies))
        parts = [part for each in inputs for part in each.parts]
        try:
            self._links.send(hop.instance, FrameHeader(run_stage=run), parts)
        except LinkLost:
            self._returns.unreachable(hop.instance)
            return False
        except LinkFull as error:
            self._fail(errand.batch, str(error), retriable=True)
            return False
        return True

    def _wire_route(self, hops: Iterable[PartHop | Hop]) -> list[link_pb2.Hop]:
        now_us = self._now_us()
        route: list[link_pb2.Hop] = []
        for hop in hops:
            sent = link_pb2.Hop(
                instance_id=hop.instance,
                address=self._links.address(hop.instance),
                start_in_us=max(0, hop.start_us - now_us),
                sequence=hop.sequence,
            )
            if isinstance(hop, PartHop):
                sent.stage, sent.first, sent.count = hop.stage, hop.first, hop.count
            route.append(sent)
        return route

    def _fail(self, batch: BatchId, detail: str, *, retriable: bool = False) -> None:
        self._trips.pop(batch, None)
        self._returns.failed(batch, detail, retriable=retriable)


def _shares(own: Part, hops: Iterable[tuple[int, Part]]) -> list[tuple[int, Part]]:
    """Return the rows that a courier has at each of these hops, where it has some."""
    shares = ((place, own.rows_of(part)) for place, part in hops)
    return [(place, rows) for place, rows in shares if rows.count > 0]


def _first_stage(errand: Errand) -> list[tuple[int, Part]]:
    return _hops_of(errand, errand.route[0])


def _last_stage(errand: Errand) -> list[tuple[int, Part]]:
    return _hops_of(errand, errand.route[-1])


def _hops_of(errand: Errand, one: PartHop | Hop) -> list[tuple[int, Part]]:
    """Return place and rows of all hops of one's stage."""
    if not isinstance(one, PartHop):
        place = 0 if one is errand.route[0] else len(errand.route) - 1
        return [(place, Part(place, 0, errand.samples))]
    return [
        (place, Part(hop.stage, hop.first, hop.count))
        for place, hop in enumerate(errand.route)
        if isinstance(hop, PartHop) and hop.stage == one.stage
    ]


def _wire_replies(replies: Iterable[Reply]) -> list[link_pb2.Reply]:
    return [link_pb2.Reply(address=r.address, first=r.first, count=r.count) for r in replies]

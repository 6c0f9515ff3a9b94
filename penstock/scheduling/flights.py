"""Requests that are open and batches that are on their way: who still owes what to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import Request, Slice, samples_of
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.offers import Offer, OfferedHop
from penstock.scheduling.part_offers import OfferedPart
from penstock.scheduling.parts import Part

_NONE: Final = BatchId(-1)


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request without an outcome.

    Attributes:
        unanswered: samples whose result has not come back.
        rebooked: how often a batch of it was lost and its samples queued again.
    """

    request: Request
    unanswered: int
    rebooked: int = 0
    _batch: BatchId = _NONE
    _others: tuple[BatchId, ...] = ()

    @property
    def batches(self) -> tuple[BatchId, ...]:
        """Those that carry samples of it, each once; most requests go in one."""
        return self._others if self._batch == _NONE else (self._batch, *self._others)

    def board(self, batch: BatchId) -> None:
        """Take it that a batch carries samples of it."""
        if batch in self.batches:
            return
        if self._batch == _NONE:
            self._batch = batch
        else:
            self._others += (batch,)

    def leave(self, batch: BatchId) -> None:
        """Take it that a batch carries none of it any more."""
        if self._batch == batch:
            self._batch = _NONE
        else:
            self._others = tuple([each for each in self._others if each != batch])


@dataclass(slots=True, eq=False)
class Flight:
    """A batch on its way.

    Attributes:
        size: samples in it.
        hops: of its route, with their bookings; a stage each, or a part if some stage cuts it.
        completion_us: when it was predicted to be answered.
        give_up_us: if nothing was heard by then, it is lost.
        hops_done: the hops that have reported, a bit each; reports may overtake each other.
    """

    batch: BatchId
    model: ModelName
    pipeline: PipelineId
    slices: tuple[Slice, ...]
    size: int
    hops: tuple[OfferedHop | OfferedPart, ...]
    launched_us: Micros
    completion_us: Micros
    give_up_us: Micros
    hops_done: int = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its rows at each hop; none if it goes whole."""
        return tuple(hop.part for hop in self.hops if isinstance(hop, OfferedPart))

    def pending_instances(self) -> tuple[InstanceId, ...]:
        """Return the instances that have not reported all they run, each once, as on the route."""
        pending = [
            hop.instance.id for place, hop in enumerate(self.hops) if not self._is_done(place)
        ]
        return tuple(dict.fromkeys(pending))

    def finish_hop(self, place: int, now_us: Micros, compute_us: Micros) -> bool:
        """Correct the booking of one hop and learn from it; return whether predictions moved."""
        if self._is_done(place):
            return False
        self.hops_done |= 1 << place
        hop = self.hops[place]
        size = hop.part.count if isinstance(hop, OfferedPart) else self.size
        learned = hop.instance.pool.estimator.observe(size, compute_us)
        return hop.instance.finish(hop.booking, now_us) or learned

    def release(self, now_us: Micros) -> None:
        """Forget all its bookings that are left; of those on network cards what lies ahead."""
        for place, hop in enumerate(self.hops):
            if not self._is_done(place):
                hop.instance.release(hop.booking)
            if isinstance(hop, OfferedPart):
                for each in hop.transfers:
                    self._release_transfer(each.place, place, each.booking, now_us)
            elif hop.transfer is not None:
                self._release_transfer(place - 1, place, hop.transfer, now_us)

    def _release_transfer(
        self, sender: int, receiver: int, booking: Booking, now_us: Micros
    ) -> None:
        if booking.end_us <= now_us:
            return  # keeps nobody waiting
        self.hops[sender].instance.card.up.release(booking)
        self.hops[receiver].instance.card.down.release(booking)

    def _is_done(self, place: int) -> bool:
        return self.hops_done >> place & 1 == 1


def open_flight(
    batch: BatchId,
    offer: Offer,
    slices: tuple[Slice, ...],
    now_us: Micros,
    give_up_us: Micros,
) -> Flight:
    """Return the flight of an offer that was just booked."""
    return Flight(
        batch=batch,
        model=offer.hops[0].instance.model,
        pipeline=offer.pipeline.id,
        slices=slices,
        size=samples_of(slices),
        hops=offer.hops,
        launched_us=now_us,
        completion_us=offer.completion_us,
        give_up_us=give_up_us,
    )


def owed(requests: dict[RequestId, OpenRequest], flight: Flight) -> list[OpenRequest]:
    """Return the requests that still wait for this flight, each once."""
    seen: dict[RequestId, OpenRequest] = {}
    for each in flight.slices:
        open_request = requests.get(each.request)
        if open_request is not None:
            seen[each.request] = open_request
    return list(seen.values())

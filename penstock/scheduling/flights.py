"""Requests that are open and batches that are on their way: who still owes what to whom."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import Request, Slice, samples_of
from penstock.domain.units import Micros
from penstock.scheduling.instances import Instance
from penstock.scheduling.offers import Offer, parts_of, transfers_of
from penstock.scheduling.parts import Part


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request without an outcome.

    Attributes:
        unanswered: samples whose result has not come back.
        batches: those that carry samples of it, each once; most requests go in one.
        rebooked: how often a batch of it was lost and its samples queued again.
    """

    request: Request
    unanswered: int
    batches: tuple[BatchId, ...] = ()
    rebooked: int = 0

    def board(self, batch: BatchId) -> None:
        """Take it that a batch carries samples of it."""
        if batch not in self.batches:
            self.batches += (batch,)

    def leave(self, batch: BatchId) -> None:
        """Take it that a batch carries none of it any more."""
        self.batches = tuple([each for each in self.batches if each != batch])


@dataclass(slots=True, eq=False)
class Flight:
    """A batch on its way.

    Attributes:
        size: samples in it.
        instances: of its route, hop by hop.
        completion_us: when it was predicted to be answered.
        give_up_us: if nothing was heard by then, it is lost.
        parts: its rows at each hop, if some stage cuts it; else none, and a hop is a stage.
        transfers: between which hops rows are booked to cross the network, sender first.
        hops_done: the hops that have reported, a bit each; reports may overtake each other.
    """

    batch: BatchId
    model: ModelName
    pipeline: PipelineId
    slices: tuple[Slice, ...]
    size: int
    instances: tuple[Instance, ...]
    launched_us: Micros
    completion_us: Micros
    give_up_us: Micros
    parts: tuple[Part, ...]
    transfers: tuple[tuple[int, int], ...]
    hops_done: int = 0

    def pending_instances(self) -> tuple[InstanceId, ...]:
        """Return the instances that have not reported all they run, each once, as on the route."""
        pending = (each.id for place, each in enumerate(self.instances) if not self._is_done(place))
        return tuple(dict.fromkeys(pending) if self.parts else pending)

    def finish_hop(self, place: int, now_us: Micros, compute_us: Micros) -> bool:
        """Correct the booking of one hop and learn from it; return whether predictions moved."""
        if self._is_done(place):
            return False
        self.hops_done |= 1 << place
        instance = self.instances[place]
        size = self.parts[place].count if self.parts else self.size
        learned = instance.pool.estimator.observe(size, compute_us)
        return instance.finish((self.batch, place), now_us) or learned

    def release(self) -> None:
        """Forget all its bookings that are left."""
        for place, instance in enumerate(self.instances):
            if not self._is_done(place):
                instance.release((self.batch, place))
        for sender, place in self.transfers:
            key = (self.batch, place, sender)
            self.instances[sender].card.up.release(key)
            self.instances[place].card.down.release(key)

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
    parts = parts_of(offer)
    return Flight(
        batch=batch,
        model=offer.hops[0].instance.model,
        pipeline=offer.pipeline.id,
        slices=slices,
        size=samples_of(slices),
        instances=tuple([hop.instance for hop in offer.hops]),
        launched_us=now_us,
        completion_us=offer.completion_us,
        give_up_us=give_up_us,
        parts=tuple(hop.part for hop in parts),
        transfers=transfers_of(offer),
    )


def owed(requests: dict[RequestId, OpenRequest], flight: Flight) -> list[OpenRequest]:
    """Return the requests that still wait for this flight, each once."""
    seen: dict[RequestId, OpenRequest] = {}
    for each in flight.slices:
        open_request = requests.get(each.request)
        if open_request is not None:
            seen[each.request] = open_request
    return list(seen.values())

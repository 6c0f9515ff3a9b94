"""The route and the times that a batch would get where some stage takes it in parts.

The same search as for a whole batch (`penstock.scheduling.offers`), part by part: each gets the
instance that is done with it first, after what the parts before it take. A part starts when all
rows it needs have come, over the network cards of all who send some. While an offer is drafted its
transfers are booked on the cards, and given back; nothing else is touched.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.effects import PartHop
from penstock.scheduling.instances import (
    MOST_LOOKS,
    Instance,
    LivePipeline,
    LivePool,
    NetworkCard,
    book_transfer,
    free_us_of,
)
from penstock.scheduling.lanes import Lane, gap_in_both
from penstock.scheduling.parts import Part


@dataclass(frozen=True, slots=True)
class OfferedTransfer:
    """Rows on two network cards at once.

    Attributes:
        place: of the part that sends them.
    """

    place: int
    booking: Booking


@dataclass(frozen=True, slots=True)
class OfferedPart:
    """One part of one stage of an offer.

    Attributes:
        transfers: in order of time; none if all its rows are on its server already.
        booking: compute interval.
    """

    part: Part
    instance: Instance
    transfers: tuple[OfferedTransfer, ...]
    booking: Booking

    @property
    def start_us(self) -> Micros:
        """When it starts."""
        return self.booking.start_us

    @property
    def end_us(self) -> Micros:
        """When it is done."""
        return self.booking.end_us


class OfferedParts(NamedTuple):
    """The parts of an offer, in order of the route, and what its times add up to.

    Attributes:
        completion_us: instant the answer is back at the frontend.
        work_us: time until then on this very route if nothing else were booked. Parts that wait
            for each other count as work: no other batch keeps them waiting.
    """

    hops: tuple[OfferedPart, ...]
    completion_us: Micros
    work_us: Micros


def offer_parts(pipeline: LivePipeline, size: int, now_us: Micros, hop_us: Micros) -> OfferedParts:
    """Compute the offer of one pipeline for a batch that has to be cut.

    Args:
        pipeline: one that has a route.
        size: batch size, 1 to the pipeline's own.
        now_us: the batch would leave now.
        hop_us: fixed cost of each hand-over.
    """
    booked = _Draft(pipeline, size, now_us, hop_us)
    try:
        for place in range(len(booked.parts)):
            booked.take(_earliest(booked, place))
    finally:
        booked.release()
    alone = _Draft(pipeline, size, now_us, hop_us, alone=True)
    for place, hop in enumerate(booked.hops):
        alone.take(alone.hop(hop.part, hop.instance, alone.senders(place)))
    completion_us = booked.completion_us()
    # Alone, rows may arrive in another order, which once in a while takes longer.
    work_us = min(alone.completion_us(), completion_us) - now_us
    return OfferedParts(tuple(booked.hops), completion_us, work_us)


def book_parts(hops: Sequence[OfferedPart], now_us: Micros) -> tuple[PartHop, ...]:
    """Book every instance and network card of an offer made at this very instant."""
    route: list[PartHop] = []
    for hop in hops:
        for each in hop.transfers:
            sender = hops[each.place].instance
            book_transfer(sender.card, hop.instance.card, each.booking, now_us)
        route.append(
            PartHop(
                instance=hop.instance.id,
                start_us=hop.start_us,
                end_us=hop.end_us,
                sequence=hop.instance.book(hop.booking),
                stage=hop.part.stage,
                first=hop.part.first,
                count=hop.part.count,
            )
        )
    return tuple(route)


def shortened(hops: Sequence[OfferedPart], size: int) -> tuple[OfferedPart, ...]:
    """Return the route for the first rows only; whatever is left runs when it would have."""
    kept = [place for place, hop in enumerate(hops) if hop.part.first < size]
    moved = {place: number for number, place in enumerate(kept)}
    return tuple(
        replace(
            hops[place],
            part=hops[place].part.within(size),
            transfers=tuple(
                replace(each, place=moved[each.place])
                for each in hops[place].transfers
                if each.place in moved
            ),
        )
        for place in kept
    )


class _Sender(NamedTuple):
    """A hop that rows of a part come from.

    Attributes:
        wire_us: how long they are on the wire.
    """

    place: int
    hop: OfferedPart
    wire_us: Micros


class _Draft:
    """A route as far as it is drafted, and what it takes of instances and network cards.

    Args:
        alone: nothing else is booked anywhere.
    """

    def __init__(
        self,
        pipeline: LivePipeline,
        size: int,
        now_us: Micros,
        hop_us: Micros,
        *,
        alone: bool = False,
    ) -> None:
        cuts = pipeline.cuts(size)
        self.pipeline = pipeline
        self.parts = cuts.parts
        self.hops: list[OfferedPart] = []
        self.now_us = now_us
        self.hop_us = hop_us
        self._feeds = cuts.feeds
        self._alone = alone
        self._instances: dict[Instance, Micros] = {}
        self._cards: defaultdict[NetworkCard, NetworkCard] = defaultdict(NetworkCard)

    def take(self, hop: OfferedPart) -> None:
        """Take what the next hop needs away from those that follow."""
        self.hops.append(hop)
        self._instances[hop.instance] = hop.end_us
        for each in hop.transfers:
            self._book(each, hop.instance)

    def release(self) -> None:
        """Give back what is booked on network cards."""
        for hop in self.hops:
            for each in hop.transfers:
                self._release(each, hop.instance)

    def completion_us(self) -> Micros:
        """Return when the last part of the answer is back."""
        last = self.hops[-1].part.stage
        return max(hop.end_us for hop in self.hops if hop.part.stage == last) + self.hop_us

    def senders(self, place: int) -> list[_Sender]:
        """Return what a part waits for, what is sent first in front."""
        stage = self.parts[place].stage
        each_us = self.pipeline.plan.transfers[stage - 1].us_per_sample if stage else 0
        feeds = self._feeds[place]
        found = [_Sender(each.place, self.hops[each.place], each.count * each_us) for each in feeds]
        return sorted(found, key=_end_us) if len(found) > 1 else found

    def hop(self, part: Part, instance: Instance, senders: Sequence[_Sender]) -> OfferedPart:
        """Return the next part's hop if it went to this instance."""
        transfers: list[OfferedTransfer] = []
        ready_us = 0 if part.stage else self.now_us
        for place, sender, wire_us in senders:
            there_us = sender.end_us
            if wire_us and sender.instance.card is not instance.card:
                from_us = gap_in_both(*self._lanes(place, instance), there_us, wire_us)
                there_us = from_us + wire_us
                transfers.append(OfferedTransfer(place, Booking(from_us, there_us)))
                self._book(transfers[-1], instance)
            ready_us = max(ready_us, there_us)
        for each in transfers:
            self._release(each, instance)
        start_us = max(ready_us + self.hop_us, self._free_us(instance))
        end_us = start_us + instance.pool.latency_us(part.count)
        return OfferedPart(part, instance, tuple(transfers), Booking(start_us, end_us))

    def done_us(self, hop: OfferedPart) -> Micros:
        """Return when a part is computed and, if it goes on, may leave through the card."""
        stage = hop.part.stage
        if stage + 1 == len(self.pipeline.pools):
            return hop.end_us
        wire_us = hop.part.count * self.pipeline.plan.transfers[stage].us_per_sample
        return self._card(hop.instance).up.gap(hop.end_us, wire_us) if wire_us else hop.end_us

    def _card(self, instance: Instance) -> NetworkCard:
        return self._cards[instance.card] if self._alone else instance.card

    def _lanes(self, sender: int, receiver: Instance) -> tuple[Lane, Lane]:
        return self._card(self.hops[sender].instance).up, self._card(receiver).down

    def _book(self, transfer: OfferedTransfer, receiver: Instance) -> None:
        for lane in self._lanes(transfer.place, receiver):
            lane.book(transfer.booking)

    def _release(self, transfer: OfferedTransfer, receiver: Instance) -> None:
        for lane in self._lanes(transfer.place, receiver):
            lane.release(transfer.booking)

    def _free_us(self, instance: Instance) -> Micros:
        taken_us = self._instances.get(instance)
        if taken_us is not None:
            return taken_us
        return self.now_us if self._alone else instance.timeline.free_at(self.now_us)


def _earliest(draft: _Draft, place: int) -> OfferedPart:
    """Return the hop to the instance that is done first with a part.

    Those with rows of it on their server are looked at first; the others in the order in which
    their bookings end, while one could still be sooner.
    """
    part = draft.parts[place]
    pool = draft.pipeline.pools[part.stage]
    senders = draft.senders(place)
    compute_us = pool.latency_us(part.count)
    near = _near(pool, senders)
    best: OfferedPart | None = None
    best_us = 0
    for instance in near:
        hop = draft.hop(part, instance, senders)
        done_us = draft.done_us(hop)
        if best is None or done_us < best_us:
            best, best_us = hop, done_us
    ready_us = max((each.hop.end_us + each.wire_us for each in senders), default=draft.now_us)
    soonest_us = ready_us + draft.hop_us
    looked_at: list[int] = []
    by_free = pool.by_free
    while by_free and len(looked_at) < MOST_LOOKS:
        if best is not None and best_us <= max(soonest_us, free_us_of(by_free[0])) + compute_us:
            break
        entry = heapq.heappop(by_free)
        candidate = pool.held_by(entry)
        if candidate is None:
            continue
        looked_at.append(entry)
        if candidate not in near:
            hop = draft.hop(part, candidate, senders)
            done_us = draft.done_us(hop)
            if best is None or done_us < best_us:
                best, best_us = hop, done_us
    for entry in looked_at:
        heapq.heappush(by_free, entry)
    if best is None:
        raise InvariantViolation(f"pool {pool.plan.id} has no instance")
    return best


def _near(pool: LivePool, senders: Sequence[_Sender]) -> dict[Instance, None]:
    """Return the instances of a pool that lie on one server with rows of a part."""
    near: dict[Instance, None] = {}
    for card in {each.hop.instance.card: None for each in senders if each.wire_us}:
        near.update(dict.fromkeys(pool.on_card(card)))
    return near


def _end_us(sender: _Sender) -> Micros:
    return sender.hop.end_us

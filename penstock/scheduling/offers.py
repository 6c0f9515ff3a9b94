"""Offers: the route and the times a batch would get, computed but not booked.

Follows the reservation offer of PPipe (ATC 2025, §5): stage by stage the instance with the
earliest completion, where a stage waits for its instance, and a transfer for the sender's and
the receiver's network card. One thing is added: an instance whose server has no time to send the
batch on is not the first to be done with it. The first idle one may sit behind a busy card, and
everything queued would wait for it while others idle.

A batch that some stage takes in parts is offered by `penstock.scheduling.part_offers`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.effects import Hop, PartHop
from penstock.scheduling.instances import (
    MOST_LOOKS,
    Instance,
    LivePipeline,
    LivePool,
    book_transfer,
    free_us_of,
)
from penstock.scheduling.lanes import gap_in_both
from penstock.scheduling.part_offers import OfferedPart, book_parts, offer_parts, shortened


@dataclass(frozen=True, slots=True)
class OfferedHop:
    """One stage of an offer.

    Attributes:
        transfer: interval on the two network cards before the stage, or None if the data
            stays on one server (or comes from the frontend).
        booking: compute interval.
    """

    instance: Instance
    transfer: Booking | None
    booking: Booking

    @property
    def start_us(self) -> Micros:
        """When it starts."""
        return self.booking.start_us

    @property
    def end_us(self) -> Micros:
        """When it is done."""
        return self.booking.end_us


@dataclass(frozen=True, slots=True)
class Offer:
    """What a batch of `size` would get if it left now.

    Attributes:
        hops: one for each stage; or, if some stage has to cut the batch, one for each part of
            each stage.
        completion_us: instant the answer is back at the frontend.
        work_us: time until then that is compute, transfer or hand-over.
        queueing_us: the rest of it.
        idle_us: how long the batch would lie idle before its first instance is free.
    """

    pipeline: LivePipeline
    size: int
    hops: tuple[OfferedHop | OfferedPart, ...]
    completion_us: Micros
    work_us: Micros
    queueing_us: Micros
    idle_us: Micros


def make_offer(pipeline: LivePipeline, size: int, now_us: Micros, hop_us: Micros) -> Offer:
    """Compute the offer of one pipeline; books nothing.

    Args:
        pipeline: one that has a route.
        size: batch size, 1 to the pipeline's own.
        now_us: the batch would leave now.
        hop_us: fixed cost of each hand-over.
    """
    if size > pipeline.uncut:
        return _in_parts(pipeline, size, now_us, hop_us)
    pools = pipeline.pools
    wires_us = [size * each.us_per_sample for each in pipeline.plan.transfers]
    wires_us.append(0)  # the answer's way back is part of the hand-over
    compute_us = pools[0].latency_us(size)
    hop = _first_free(pools[0], now_us + hop_us, compute_us, wires_us[0], now_us)
    idle_us = hop.start_us - now_us - hop_us
    work_us = 2 * hop_us + compute_us
    hops = [hop]
    for stage in range(1, len(pools)):
        compute_us = pools[stage].latency_us(size)
        wire_us = wires_us[stage - 1]
        hop = _earliest(hop, pools[stage], wire_us, compute_us, wires_us[stage], hop_us, now_us)
        hops.append(hop)
        work_us += hop_us + compute_us
        if hop.transfer is not None:
            work_us += wire_us
    completion_us = hop.end_us + hop_us
    queueing_us = completion_us - now_us - work_us
    return Offer(pipeline, size, tuple(hops), completion_us, work_us, queueing_us, idle_us)


def book_offer(offer: Offer, now_us: Micros) -> tuple[Hop | PartHop, ...]:
    """Book every instance and network card of an offer made at this very instant."""
    route: list[Hop | PartHop] = []
    sender: Instance | None = None
    for hop in offer.hops:
        if isinstance(hop, OfferedPart):
            return book_parts(parts_of(offer), now_us)
        instance, booking = hop.instance, hop.booking
        if hop.transfer is not None and sender is not None:
            book_transfer(sender.card, instance.card, hop.transfer, now_us)
        route.append(
            Hop(
                instance=instance.id,
                start_us=booking.start_us,
                end_us=booking.end_us,
                sequence=instance.book(booking),
            )
        )
        sender = instance
    return tuple(route)


def parts_of(offer: Offer) -> tuple[OfferedPart, ...]:
    """Return the parts of an offer; none if its batch is not cut."""
    return tuple(hop for hop in offer.hops if isinstance(hop, OfferedPart))


def shorten(offer: Offer, size: int) -> Offer:
    """Return the offer for a batch that turned out smaller, at the same times."""
    if size == offer.size or not isinstance(offer.hops[0], OfferedPart):
        return offer
    return replace(offer, size=size, hops=shortened(parts_of(offer), size))


def _in_parts(pipeline: LivePipeline, size: int, now_us: Micros, hop_us: Micros) -> Offer:
    hops, completion_us, work_us = offer_parts(pipeline, size, now_us, hop_us)
    queueing_us = completion_us - now_us - work_us
    idle_us = min(hop.start_us for hop in hops) - now_us - hop_us
    return Offer(pipeline, size, hops, completion_us, work_us, queueing_us, idle_us)


def _earliest(
    before: OfferedHop,
    pool: LivePool,
    wire_us: Micros,
    compute_us: Micros,
    next_wire_us: Micros,
    hop_us: Micros,
    now_us: Micros,
) -> OfferedHop:
    """Return the hop to the instance that is done first, network cards considered.

    Instances are looked at in the order in which their bookings end; no later one can start before
    that, nor anyone before the batch is there. So the search ends after a few, however large the
    pool is.
    """
    if wire_us == 0:
        return _first_free(pool, before.end_us + hop_us, compute_us, next_wire_us, now_us)
    sender = before.instance
    best: Instance | None = None
    best_us = best_start_us = 0
    transfer: Booking | None = None
    for each in pool.on_card(sender.card):
        start_us = max(before.end_us + hop_us, each.timeline.free_at(now_us))
        done_us = _done_us(each, start_us + compute_us, next_wire_us)
        if best is None or done_us < best_us:
            best, best_us, best_start_us = each, done_us, start_us
    by_free = pool.by_free
    up = sender.card.up
    leave_us = up.gap(before.end_us, wire_us)
    soonest_us = leave_us + wire_us + hop_us
    looked_at: list[int] = []
    while by_free and len(looked_at) < MOST_LOOKS:
        if best is not None and best_us <= max(soonest_us, free_us_of(by_free[0])) + compute_us:
            break
        entry = heapq.heappop(by_free)
        candidate = pool.held_by(entry)
        if candidate is None:
            continue
        looked_at.append(entry)
        if candidate.card is sender.card:
            continue
        from_us = gap_in_both(up, candidate.card.down, leave_us, wire_us)
        there_us = from_us + wire_us
        start_us = max(there_us + hop_us, candidate.timeline.free_at(now_us))
        done_us = _done_us(candidate, start_us + compute_us, next_wire_us)
        if best is None or done_us < best_us:
            best, best_us, best_start_us = candidate, done_us, start_us
            transfer = Booking(from_us, there_us)
    for entry in looked_at:
        heapq.heappush(by_free, entry)
    return _hop(pool, best, transfer, best_start_us, compute_us)


def _first_free(
    pool: LivePool, ready_us: Micros, compute_us: Micros, next_wire_us: Micros, now_us: Micros
) -> OfferedHop:
    """Return the hop to the instance that is done first with a batch that needs no card."""
    by_free = pool.by_free
    best: Instance | None = None
    best_us = best_start_us = 0
    looked_at: list[int] = []
    while by_free and len(looked_at) < MOST_LOOKS:
        entry = by_free[0]
        soonest_us = max(ready_us, free_us_of(entry)) + compute_us
        if best is not None and best_us <= soonest_us:
            break
        each = pool.held_by(entry)
        if each is None:
            heapq.heappop(by_free)
            continue
        start_us = max(ready_us, each.timeline.free_at(now_us))
        done_us = _done_us(each, start_us + compute_us, next_wire_us)
        if best is None or done_us < best_us:
            best, best_us, best_start_us = each, done_us, start_us
        if best_us <= soonest_us:
            break
        looked_at.append(heapq.heappop(by_free))
    for entry in looked_at:
        heapq.heappush(by_free, entry)
    return _hop(pool, best, None, best_start_us, compute_us)


def _done_us(instance: Instance, end_us: Micros, next_wire_us: Micros) -> Micros:
    """Return when a batch is computed and, if it goes on, may leave through the network card."""
    return instance.card.up.gap(end_us, next_wire_us) if next_wire_us else end_us


def _hop(
    pool: LivePool,
    found: Instance | None,
    transfer: Booking | None,
    start_us: Micros,
    compute_us: Micros,
) -> OfferedHop:
    if found is None:
        raise InvariantViolation(f"pool {pool.plan.id} has no instance")
    return OfferedHop(found, transfer, Booking(start_us, start_us + compute_us))

"""Offers: the route and the times a batch would get, computed but not booked.

Follows the reservation offer of PPipe (ATC 2025, §5): stage by stage the instance with the
earliest completion, where a stage waits for its instance, and a transfer for the sender's and
the receiver's network card.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import BatchId
from penstock.domain.units import Micros
from penstock.scheduling.effects import Hop
from penstock.scheduling.instances import Instance, LivePipeline, LivePool

Transfer: TypeAlias = tuple[Micros, Micros] | None
Entry: TypeAlias = tuple[Micros, int, Instance]


@dataclass(frozen=True, slots=True)
class OfferedHop:
    """One stage of an offer.

    Attributes:
        transfer_us: interval on the two network cards before the stage, or None if the data
            stays on one server (or comes from the frontend).
        start_us, end_us: compute interval.
    """

    instance: Instance
    transfer_us: tuple[Micros, Micros] | None
    start_us: Micros
    end_us: Micros


@dataclass(frozen=True, slots=True)
class Offer:
    """What a batch of `size` would get if it left now.

    Attributes:
        completion_us: instant the answer is back at the frontend.
        queueing_us: time in it that is neither compute nor transfer nor hand-over.
        idle_us: how long the batch would lie idle before its first instance is free.
    """

    pipeline: LivePipeline
    size: int
    hops: tuple[OfferedHop, ...]
    completion_us: Micros
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
    hops: list[OfferedHop] = []
    sender: Instance | None = None
    at_us = now_us
    work_us = hop_us
    for stage, pool in enumerate(pipeline.pools):
        compute_us = pool.latency_us(size)
        wire_us = size * pipeline.plan.transfers[stage - 1].us_per_sample if stage else 0
        instance, transfer, start_us = _earliest(pool, sender, at_us, wire_us, hop_us, now_us)
        at_us = start_us + compute_us
        hops.append(OfferedHop(instance, transfer, start_us, at_us))
        work_us += hop_us + compute_us
        if transfer is not None:
            work_us += wire_us
        sender = instance
    completion_us = at_us + hop_us
    return Offer(
        pipeline=pipeline,
        size=size,
        hops=tuple(hops),
        completion_us=completion_us,
        queueing_us=completion_us - now_us - work_us,
        idle_us=hops[0].start_us - now_us - hop_us,
    )


def book_offer(offer: Offer, batch: BatchId, now_us: Micros) -> tuple[Hop, ...]:
    """Book every instance and network card of an offer made at this very instant."""
    route: list[Hop] = []
    sender: Instance | None = None
    for stage, hop in enumerate(offer.hops):
        instance = hop.instance
        if hop.transfer_us is not None and sender is not None:
            for lane in (sender.card.up, instance.card.down):
                lane.expire(now_us)
                lane.book((batch, stage), *hop.transfer_us)
        sequence = instance.book(batch, hop.start_us, hop.end_us)
        route.append(
            Hop(instance=instance.id, start_us=hop.start_us, end_us=hop.end_us, sequence=sequence)
        )
        sender = instance
    return tuple(route)


def _earliest(
    pool: LivePool,
    sender: Instance | None,
    at_us: Micros,
    wire_us: Micros,
    hop_us: Micros,
    now_us: Micros,
) -> tuple[Instance, Transfer, Micros]:
    """Return the instance that can start first, the interval on the cards, and when it starts.

    Instances are looked at in the order in which their bookings end; no later one can start before
    that, nor anyone before the batch is there. So the search ends after one or two, however large
    the pool is.
    """
    if sender is None or wire_us == 0:
        return _first_free(pool, at_us + hop_us, now_us)
    best: tuple[Instance, Transfer, Micros] | None = None
    for each in pool.on_server(sender.server):
        start_us = max(at_us + hop_us, each.timeline.free_at(now_us))
        if best is None or start_us < best[2]:
            best = each, None, start_us
    leave_us = max(at_us, sender.card.up.free_us)
    soonest_us = leave_us + wire_us + hop_us
    looked_at: list[Entry] = []
    while pool.by_free and (best is None or best[2] > max(soonest_us, pool.by_free[0][0])):
        entry = heapq.heappop(pool.by_free)
        if not pool.is_current(entry):
            continue
        looked_at.append(entry)
        instance = entry[2]
        if instance.server == sender.server:
            continue
        from_us = max(leave_us, instance.card.down.free_us)
        there_us = from_us + wire_us
        start_us = max(there_us + hop_us, instance.timeline.free_at(now_us))
        if best is None or start_us < best[2]:
            best = instance, (from_us, there_us), start_us
    for entry in looked_at:
        heapq.heappush(pool.by_free, entry)
    if best is None:
        raise InvariantViolation(f"pool {pool.plan.id} has no instance")
    return best


def _first_free(
    pool: LivePool, ready_us: Micros, now_us: Micros
) -> tuple[Instance, Transfer, Micros]:
    """Return the instance that is free first once the batch is there; nothing is moved."""
    best: Instance | None = None
    best_us = 0
    looked_at: list[Entry] = []
    while pool.by_free and (best is None or best_us > max(ready_us, pool.by_free[0][0])):
        entry = pool.by_free[0]
        if not pool.is_current(entry):
            heapq.heappop(pool.by_free)
            continue
        start_us = max(ready_us, entry[2].timeline.free_at(now_us))
        if best is None or start_us < best_us:
            best, best_us = entry[2], start_us
        if best_us > max(ready_us, entry[0]):  # it overran: another may be free before it
            looked_at.append(heapq.heappop(pool.by_free))
        else:
            break
    for entry in looked_at:
        heapq.heappush(pool.by_free, entry)
    if best is None:
        raise InvariantViolation(f"pool {pool.plan.id} has no instance")
    return best, None, best_us

"""Offers: the route and the times a batch would get, computed but not booked.

Follows the reservation offer of PPipe (ATC 2025, §5): stage by stage the instance with the
earliest completion, where a stage waits for its instance, and a transfer for the sender's and
the receiver's network card.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.ids import BatchId
from penstock.domain.units import Micros
from penstock.scheduling.effects import Hop
from penstock.scheduling.instances import Instance, LivePipeline


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
    at_us = now_us
    work_us = hop_us
    for stage, pool in enumerate(pipeline.pools):
        compute_us = pool.latency_us(size)
        wire_us = size * pipeline.plan.transfers[stage - 1].us_per_sample if stage else 0
        sender = hops[-1].instance if hops else None
        hop = min(
            (
                _offer_hop(sender, each, at_us, wire_us, hop_us, compute_us, now_us)
                for each in pool.instances.values()
            ),
            key=_completion,
        )
        hops.append(hop)
        at_us = hop.end_us
        work_us += hop_us + compute_us
        if hop.transfer_us is not None:
            work_us += wire_us
    completion_us = at_us + hop_us
    return Offer(
        pipeline=pipeline,
        size=size,
        hops=tuple(hops),
        completion_us=completion_us,
        queueing_us=completion_us - now_us - work_us,
        idle_us=hops[0].start_us - now_us - hop_us,
    )


def book_offer(offer: Offer, batch: BatchId) -> tuple[Hop, ...]:
    """Book every instance and network card of an offer made at this very instant."""
    route: list[Hop] = []
    sender: Instance | None = None
    for stage, hop in enumerate(offer.hops):
        instance = hop.instance
        if hop.transfer_us is not None and sender is not None:
            sender.card.up.book((batch, stage), *hop.transfer_us)
            instance.card.down.book((batch, stage), *hop.transfer_us)
        instance.timeline.book(batch, hop.start_us, hop.end_us)
        route.append(
            Hop(
                instance=instance.id,
                start_us=hop.start_us,
                end_us=hop.end_us,
                sequence=instance.next_sequence,
            )
        )
        instance.next_sequence += 1
        sender = instance
    return tuple(route)


def _completion(hop: OfferedHop) -> Micros:
    return hop.end_us


def _offer_hop(
    sender: Instance | None,
    instance: Instance,
    ready_us: Micros,
    wire_us: Micros,
    hop_us: Micros,
    compute_us: Micros,
    now_us: Micros,
) -> OfferedHop:
    transfer: tuple[Micros, Micros] | None = None
    if sender is not None and wire_us > 0 and sender.server != instance.server:
        sender.card.up.expire(now_us)
        instance.card.down.expire(now_us)
        leave_us = max(ready_us, sender.card.up.free_at(now_us), instance.card.down.free_at(now_us))
        ready_us = leave_us + wire_us
        transfer = (leave_us, ready_us)
    start_us = max(ready_us + hop_us, instance.timeline.free_at(now_us))
    return OfferedHop(instance, transfer, start_us, start_us + compute_us)

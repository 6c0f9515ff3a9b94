"""Instances that are ready, the pools they form and the network cards they share."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.domain.ids import InstanceId, ModelName, PipelineId, PoolId, ServerId
from penstock.domain.plan import ModelPlan, Pipeline, Pool
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.estimator import StageEstimator
from penstock.scheduling.lanes import Lane
from penstock.scheduling.parts import Cuts, cut
from penstock.scheduling.timeline import Timeline

# Instances of a pool looked at for one hop: with every network card busy it would be all of them.
MOST_LOOKS = 32
_STALE: Final = 8  # entries per instance; with more those that hold no more are thrown away
_PLACE_BITS: Final = 20  # of an entry, for instances
_NUMBER_BITS: Final = 48  # before them, for entries
_PLACES: Final = (1 << _PLACE_BITS) - 1


def free_us_of(entry: int) -> Micros:
    """Return the instant that an entry of a pool's heap is for."""
    return entry >> (_PLACE_BITS + _NUMBER_BITS)


@dataclass(slots=True, eq=False)
class NetworkCard:
    """What all instances of one server share: one lane each way."""

    up: Lane = field(default_factory=Lane)
    down: Lane = field(default_factory=Lane)


def book_transfer(
    sender: NetworkCard, receiver: NetworkCard, transfer: Booking, now_us: Micros
) -> None:
    """Book a transfer on both cards at once; what has ended on them is forgotten."""
    for lane in (sender.up, receiver.down):
        lane.expire(now_us)
        lane.book(transfer)


@dataclass(slots=True, eq=False)
class Instance:
    """A ready instance.

    Attributes:
        pool: its own; bookings are made through the pool, which keeps the order of its instances.
        next_sequence: place of its next booking in the order booked on it.
        place: in its pool, of entries that are for it.
        settled_us: the instant under which its pool's order has it; -1: it is in no order.
        gone: it has left its pool.
    """

    id: InstanceId
    model: ModelName
    pool: LivePool
    server: ServerId
    card: NetworkCard
    timeline: Timeline = field(default_factory=Timeline)
    next_sequence: int = 0
    place: int = 0
    settled_us: Micros = -1
    gone: bool = False

    def book(self, booking: Booking) -> int:
        """Add a booking after all others; return its place in the order booked here."""
        self.timeline.book(booking)
        self.pool.settle(self)
        self.next_sequence += 1
        return self.next_sequence - 1

    def finish(self, booking: Booking, at_us: Micros) -> bool:
        """Correct the booking of a hop that ended then; return whether that moved others."""
        self.timeline.finish(booking, at_us)
        return self.pool.settle(self)

    def release(self, booking: Booking) -> None:
        """Forget the booking of one hop, if it is here."""
        self.timeline.release(booking)
        self.pool.settle(self)


@dataclass(slots=True, eq=False)
class LivePool:
    """A pool of the plan with the instances that are ready, in the order they joined.

    Attributes:
        by_free: a heap that holds each ready instance with the instant its bookings end, and
            entries that hold no more (`held_by`). An entry is one number: instant, count of
            entries, place of the instance. A tuple of them takes four times the memory, and a
            large fleet's entries would not stay in the cache.
        estimator: what its stage takes, as far as is known.
    """

    plan: Pool
    estimator: StageEstimator
    instances: dict[InstanceId, Instance] = field(default_factory=dict)
    by_free: list[int] = field(default_factory=list)
    _places: list[Instance] = field(default_factory=list)
    _empty_places: list[int] = field(default_factory=list)
    _on_card: dict[NetworkCard, list[Instance]] = field(default_factory=dict)
    _pushed: int = 0

    def latency_us(self, batch: int) -> Micros:
        """Return the latency expected of the stage at a batch size up to the planned one."""
        return self.estimator.latency_us(batch)

    def work_us(self, size: int) -> Micros:
        """Return what one instance takes for a batch of any size, part after part."""
        if size <= self.plan.batch:
            return self.latency_us(size)
        parts, rest = divmod(size, self.plan.batch)
        rest_us = self.latency_us(rest) if rest else 0
        return parts * self.latency_us(self.plan.batch) + rest_us

    def rate(self) -> float:
        """Return samples per microsecond that its instances get through with planned batches."""
        batch = self.plan.batch
        return len(self.instances) * batch / max(1, self.latency_us(batch))

    def join(self, instance: Instance) -> None:
        """Take an instance that is ready."""
        self.instances[instance.id] = instance
        self._on_card.setdefault(instance.card, []).append(instance)
        if self._empty_places:
            instance.place = self._empty_places.pop()
            self._places[instance.place] = instance
        else:
            instance.place = len(self._places)
            self._places.append(instance)
        self.settle(instance)

    def leave(self, instance: Instance) -> None:
        """Forget an instance."""
        if self.instances.pop(instance.id, None) is not None:
            self._on_card[instance.card].remove(instance)
            instance.settled_us, instance.gone = -1, True
            self._drop_stale()
            self._empty_places.append(instance.place)

    def on_card(self, card: NetworkCard) -> Sequence[Instance]:
        """Return the instances on one server, by its network card."""
        return self._on_card.get(card, ())

    def settle(self, instance: Instance) -> bool:
        """Put an instance in its place after its bookings may have changed; return whether so."""
        free_us = instance.timeline.free_us
        if instance.settled_us == free_us or instance.gone:
            return False
        instance.settled_us = free_us
        self._pushed += 1
        order = free_us << _NUMBER_BITS | self._pushed
        heapq.heappush(self.by_free, order << _PLACE_BITS | instance.place)
        if len(self.by_free) > _STALE * len(self.instances) + _STALE:
            self._drop_stale()
        return True

    def held_by(self, entry: int) -> Instance | None:
        """Return the instance that an entry of the heap is for; None if it holds no more."""
        instance = self._places[entry & _PLACES]
        return instance if instance.settled_us == free_us_of(entry) else None

    def _drop_stale(self) -> None:
        self.by_free = [entry for entry in self.by_free if self.held_by(entry) is not None]
        heapq.heapify(self.by_free)


@dataclass(slots=True, eq=False)
class LivePipeline:
    """A pipeline of the plan over live pools.

    Attributes:
        batch: largest batch launched: the largest planned in any of its pools, the others of
            which run it in parts.
        uncut: largest batch that every pool takes at once.
    """

    plan: Pipeline
    pools: tuple[LivePool, ...]
    batch: int
    uncut: int
    _cuts: dict[int, Cuts] = field(default_factory=dict)

    @property
    def id(self) -> PipelineId:
        """Id of the planned pipeline."""
        return self.plan.id

    def relative_rate(self, size: int) -> float:
        """Return the throughput at a batch size, as a part of that at the planned one."""
        return self._rate(size) / self._rate(self.batch)

    def cuts(self, size: int) -> Cuts:
        """Return the parts that a batch of `size` is run in."""
        found = self._cuts.get(size)
        if found is None:
            found = self._cuts[size] = cut(size, [pool.plan.batch for pool in self.pools])
        return found

    def _rate(self, size: int) -> float:
        """Return samples per microsecond that the slowest pool gets through."""
        return min(len(pool.instances) * size / pool.work_us(size) for pool in self.pools)

    def has_route(self) -> bool:
        """Return whether each pool has an instance."""
        return all(pool.instances for pool in self.pools)


def live_pipelines(plan: ModelPlan) -> tuple[dict[PoolId, LivePool], tuple[LivePipeline, ...]]:
    """Return a model's pools, all empty, and its pipelines over them."""
    pools = {
        pool.id: LivePool(pool, StageEstimator(pool.latency_us_by_batch)) for pool in plan.pools
    }
    return pools, tuple(_live(pipeline, pools) for pipeline in plan.pipelines)


def _live(pipeline: Pipeline, pools: Mapping[PoolId, LivePool]) -> LivePipeline:
    chosen = tuple(pools[each] for each in pipeline.pools)
    batches = [pool.plan.batch for pool in chosen]
    return LivePipeline(pipeline, chosen, max(batches), min(batches))


def capacity(pipelines: Sequence[LivePipeline]) -> float:
    """Return samples per microsecond that pipelines get through together with planned batches.

    The least over the positions of all pools there, as if batches might leave any pool of one
    position for any of the next. A pipeline that has ended takes part with its last pool.
    """
    length = max((len(each.pools) for each in pipelines), default=0)
    positions = [
        {pool.plan.id: pool for each in pipelines for pool in each.pools[: at + 1][-1:]}
        for at in range(length)
    ]
    return min((sum(pool.rate() for pool in each.values()) for each in positions), default=0.0)

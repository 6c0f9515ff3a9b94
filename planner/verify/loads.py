"""Are instances, and their part of the network card, busy for no more than all of the time?

An instance is as busy as the busiest of its three: computing, receiving, sending. What pipelines
ask of a pool they share adds up. Transfer times are exact here, not rounded to microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from penstock.domain.ids import PoolId
from penstock.domain.plan import Pipeline, Pool
from penstock.domain.units import BITS_PER_BYTE, US_PER_SECOND
from planner.verify.paths import cuts_of
from planner.verify.subject import TOLERANCE, Subject

_LEAST_LATENCY_US = 1
_BITS_PER_US = 1e3  # of one Gbit/s


def capacity_faults(subject: Subject) -> Iterator[str]:
    """Yield the pools that could not carry the flow planned through them."""
    busy: defaultdict[PoolId, float] = defaultdict(float)
    for pipeline in subject.plan.pipelines:
        for pool, load_us in zip(
            subject.pools_of(pipeline), _loads_us(pipeline, subject), strict=True
        ):
            busy[pool.id] += load_us / US_PER_SECOND * pipeline.throughput_rps
    for pool in subject.plan.pools:
        if not busy[pool.id] <= pool.instances * (1 + TOLERANCE):
            yield f"pool {pool.id}: would be busy {busy[pool.id] / pool.instances:.1%} of the time"


def _loads_us(pipeline: Pipeline, subject: Subject) -> list[float]:
    """Return, by stage, how long one sample keeps an instance busy."""
    pools = subject.pools_of(pipeline)
    times = [
        size * BITS_PER_BYTE / (gbps * _BITS_PER_US) for size, gbps in cuts_of(pipeline, subject)
    ]
    return [
        max(_computing_us(pool), max(around) * _card_sharers(pool, subject))
        for pool, around in zip(pools, zip([0.0, *times], [*times, 0.0], strict=True), strict=True)
    ]


def _computing_us(pool: Pool) -> float:
    return max(_LEAST_LATENCY_US, pool.latency_us_by_batch[pool.batch - 1]) / pool.batch


def _card_sharers(pool: Pool, subject: Subject) -> int:
    """Return how many instances of that share would share one network card."""
    return pool.share.denominator * subject.classes[pool.gpu_class].gpus_per_server

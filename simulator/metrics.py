"""What a simulated run says besides how its requests ended: GPUs, queues, batches and money.

All of it is counted after the warm-up and up to the end of the load. Computing that began or ended
outside counts with the part that lies inside.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.ids import GpuClassName, PoolId
from penstock.domain.plan import Plan
from penstock.domain.units import US_PER_SECOND, Micros
from simulator.fleet import Gpu, gpus_of
from simulator.record import Computations
from simulator.simulate import Simulation

_SECONDS_PER_HOUR = 3_600
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassUse:
    """How the GPUs of one class were used.

    Attributes:
        gpus: of the cluster, whether the plan uses them or not.
        used: that hold instances.
        utilisation: computing time by the time of all the class's GPUs; an instance on a share of
            a GPU counts with that share.
        useful_utilisation: likewise, of a batch's time only that part which its samples that were
            answered in time are of all its samples.
    """

    name: GpuClassName
    gpus: int
    used: int
    utilisation: float
    useful_utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSummary:
    """How many samples waited for a batch, over time.

    Attributes:
        p50, p95, p99: no more waited for that part of the time.
    """

    mean: float
    p50: int
    p95: int
    p99: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was paid, in the currency of the plan's prices.

    Attributes:
        per_hour: of all GPUs that hold instances.
        per_million_in_time: samples that were answered in time; None if there was none.
    """

    per_hour: float
    per_million_in_time: float | None


def class_uses(plan: Plan, result: Simulation) -> tuple[ClassUse, ...]:
    """Return how the GPUs of each class were used, in the plan's order."""
    start_us, end_us = result.window_us
    busy_us, useful_us = result.intervals.busy_us(start_us, end_us)
    busy = _by_class(result.gpus, result.intervals, busy_us)
    useful = _by_class(result.gpus, result.intervals, useful_us)
    used = Counter(each.gpu_class for each in result.gpus)
    found: list[ClassUse] = []
    for each in plan.gpu_classes:
        whole_us = max(1, each.count * (end_us - start_us))
        found.append(
            ClassUse(
                name=each.name,
                gpus=each.count,
                used=used[each.name],
                utilisation=busy.get(each.name, 0.0) / whole_us,
                useful_utilisation=useful.get(each.name, 0.0) / whole_us,
            )
        )
    return tuple(found)


def busy_by_class(plan: Plan, intervals: Computations) -> dict[GpuClassName, float]:
    """Return how long GPUs of each class computed in a whole run, in microseconds of whole GPUs."""
    busy_us, _ = intervals.busy_us(0, intervals.last_end_us())
    found = _by_class(gpus_of(plan), intervals, busy_us)
    return {name: us for name, us in found.items() if us}


def queue_summary(time_us: Mapping[int, Micros]) -> QueueSummary:
    """Sum up how long how many samples waited.

    Args:
        time_us: by number of samples, in ascending order.
    """
    total_us = sum(time_us.values())
    return QueueSummary(
        mean=sum(samples * us for samples, us in time_us.items()) / max(1, total_us),
        p50=_quantile(time_us, 0.50 * total_us),
        p95=_quantile(time_us, 0.95 * total_us),
        p99=_quantile(time_us, 0.99 * total_us),
        most=max(time_us, default=0),
    )


def batch_sizes(result: Simulation) -> dict[PoolId, dict[int, int]]:
    """Return how many batches of each size were begun in each pool, the smallest first."""
    pools = {each.id: each.pool for gpu in result.gpus for each in gpu.instances}
    pool_of = [pools[each] for each in result.intervals.instances]
    start_us, end_us = result.window_us
    rows = result.intervals
    begun = Counter(
        (instance, samples)
        for instance, samples, at_us in zip(rows.instance, rows.samples, rows.start_us, strict=True)
        if start_us <= at_us < end_us
    )
    found: dict[PoolId, dict[int, int]] = {pool: {} for pool in sorted(set(pool_of))}
    for (instance, samples), count in sorted(begun.items(), key=lambda each: each[0][1]):
        sizes = found[pool_of[instance]]
        sizes[samples] = sizes.get(samples, 0) + count
    return found


def mean_batch(sizes: Iterable[Mapping[int, int]]) -> float | None:
    """Return the mean size of batches of several pools; None if there was no batch."""
    together = Counter[int]()
    for each in sizes:
        together.update(each)
    batches = together.total()
    return sum(size * count for size, count in together.items()) / batches if batches else None


def cost(plan: Plan, result: Simulation) -> Cost | None:
    """Return what the run cost; None if a class that it used has no price."""
    prices = {each.name: each.price_per_hour for each in plan.gpu_classes}
    per_hour = 0.0
    for gpu in result.gpus:
        price = prices[gpu.gpu_class]
        if price is None:
            return None
        per_hour += price
    samples = sum(each.samples for each in result.outcomes if each.in_time)
    hours = result.span_us / US_PER_SECOND / _SECONDS_PER_HOUR
    paid = per_hour * hours
    per_million = paid / samples * _MILLION if samples else None
    return Cost(per_hour=per_hour, per_million_in_time=per_million)


def _by_class(
    gpus: Sequence[Gpu], intervals: Computations, instance_us: Iterable[float]
) -> dict[GpuClassName, float]:
    """Return times of instances as times of whole GPUs."""
    shares = {each.id: (gpu.gpu_class, float(each.share)) for gpu in gpus for each in gpu.instances}
    found: defaultdict[GpuClassName, float] = defaultdict(float)
    for instance, us in zip(intervals.instances, instance_us, strict=True):
        gpu_class, share = shares[instance]
        found[gpu_class] += share * us
    return dict(found)


def _quantile(time_us: Mapping[int, Micros], until_us: float) -> int:
    passed_us = 0
    for samples, us in time_us.items():
        passed_us += us
        if passed_us >= until_us:
            return samples
    return 0

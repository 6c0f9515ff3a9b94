"""What a plan keeps busy: GPUs, pools and links, and what that costs.

Reads the plan alone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from penstock.domain.ids import GpuClassName
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.latency.transfer import link_us

Work: TypeAlias = Literal["computing", "receiving", "sending"]

_FULL = 0.999  # use from which a resource counts as used up


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """How busy a pool is.

    Attributes:
        part: of its time; 1 is always.
        work: what it is busiest with.
    """

    part: float
    work: Work

    @property
    def full(self) -> bool:
        """Whether it can take no more."""
        return self.part >= _FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyParts:
    """What the latency of a pipeline is made of, and what the SLO leaves beside it."""

    compute_us: Micros
    transfer_us: Micros
    hops_us: Micros
    batch_build_us: Micros
    margin_us: Micros
    spare_us: Micros


def gpus_used(plan: Plan) -> dict[GpuClassName, int]:
    """Return the GPUs of each class that the plan takes.

    In compat mode the sum of shares counts, rounded up for each model and position, as published.
    """
    count = _rounded_sums if plan.solve.formulation == "compat" else _laid_out
    used = count(plan)
    return {each.name: used[each.name] for each in plan.gpu_classes}


def cost_per_hour(plan: Plan) -> float | None:
    """Return what the GPUs in use cost together; None if a class has no price."""
    used = gpus_used(plan)
    prices = {each.name: each.price_per_hour for each in plan.gpu_classes}
    known = {name: price for name, price in prices.items() if price is not None}
    if len(known) < len(prices):
        return None
    return sum(known[name] * count for name, count in used.items())


def pool_use(pool: Pool, model: ModelPlan, plan: Plan) -> PoolUse:
    """Return how busy a pool is, and with what."""
    classes = {each.name: each for each in plan.gpu_classes}
    own = classes[pool.gpu_class]
    sharers = pool.share.denominator * own.gpus_per_server
    busy: dict[Work, float] = {"computing": 0.0, "receiving": 0.0, "sending": 0.0}
    for pipeline in model.pipelines:
        if pool.id not in pipeline.pools:
            continue
        at, flow = pipeline.pools.index(pool.id), pipeline.throughput_rps
        others = [classes[model.pool(each).gpu_class] for each in pipeline.pools]
        busy["computing"] += flow * max(1, pool.latency_us) / pool.batch
        if at:
            size = pipeline.transfers[at - 1].bytes_per_sample
            busy["receiving"] += flow * sharers * link_us(size, others[at - 1], own)
        if at < len(pipeline.transfers):
            size = pipeline.transfers[at].bytes_per_sample
            busy["sending"] += flow * sharers * link_us(size, own, others[at + 1])
    work = max(busy, key=busy.__getitem__)
    return PoolUse(part=busy[work] / (US_PER_SECOND * pool.instances), work=work)


def latency_parts(pipeline: Pipeline, model: ModelPlan, plan: Plan) -> LatencyParts:
    """Return what the latency of a pipeline is made of.

    Where stages differ in batch, a group is as many samples as the largest batch so far: a stage
    with a smaller one runs it in several goes.
    """
    pools = [model.pool(each) for each in pipeline.pools]
    groups = [max(pool.batch for pool in pools[: at + 1]) for at in range(len(pools))]
    return LatencyParts(
        compute_us=sum(
            group // pool.batch * pool.latency_us for group, pool in zip(groups, pools, strict=True)
        ),
        transfer_us=sum(
            group * each.us_per_sample
            for group, each in zip(groups, pipeline.transfers, strict=False)
        ),
        hops_us=plan.hop_overhead_us * (len(pools) + 1),
        batch_build_us=pipeline.batch_build_us,
        margin_us=model.margin_us,
        spare_us=model.slo_us - model.margin_us - pipeline.latency_us,
    )


def least_served(plan: Plan) -> ModelPlan:
    """Return the model with the least throughput for its weight."""
    return min(plan.models, key=lambda each: each.throughput_rps / each.weight)


def _laid_out(plan: Plan) -> Counter[GpuClassName]:
    return Counter(slot.gpu_class for slot in gpu_slots(plan))


def _rounded_sums(plan: Plan) -> Counter[GpuClassName]:
    held: dict[tuple[str, int, GpuClassName], Fraction] = {}
    for model in plan.models:
        for pool in model.pools:
            key = model.model, pool.position, pool.gpu_class
            held[key] = held.get(key, Fraction(0)) + pool.instances * pool.share
    used: Counter[GpuClassName] = Counter()
    for (_, _, gpu_class), gpus in held.items():
        used[gpu_class] += math.ceil(gpus)
    return used

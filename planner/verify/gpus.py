"""Are there GPUs for all instances, and may they cost what they do?

That instances fit is shown by a layout, which is checked GPU by GPU: whoever made it is not
trusted. In compat mode shares are only summed and rounded up, as published; they may not fit.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from fractions import Fraction
from typing import TypeAlias, TypeVar

from penstock.domain.cluster import Cluster, PlannerOptions
from penstock.domain.ids import GpuClassName, InstanceId, ModelName, PoolId
from penstock.domain.placement import GpuSlot, gpu_slots
from penstock.domain.plan import Plan, Pool
from planner.verify.subject import TOLERANCE

Used: TypeAlias = Mapping[GpuClassName, int]
Home: TypeAlias = tuple[ModelName, Pool]
G = TypeVar("G", bound=Hashable)


def gpus_filled(plan: Plan) -> Used:
    """Return the GPUs of each class that it fills at least, however shares are laid out."""
    held = _held(plan, lambda _, pool: pool.gpu_class)
    return {name: math.ceil(each) for name, each in held.items()}


def lay_out(plan: Plan, options: PlannerOptions) -> tuple[GpuSlot, ...]:
    """Return the layout that shows how instances fit; in compat mode there need not be one."""
    return () if options.mode == "compat" else gpu_slots(plan)


def layout_faults(plan: Plan, options: PlannerOptions, slots: tuple[GpuSlot, ...]) -> Iterator[str]:
    """Yield if an instance is left out, or a GPU holds what it cannot or must not."""
    if options.mode == "compat":
        return
    homes = {pool.id: (model.model, pool) for model in plan.models for pool in model.pools}
    yield from _missing_faults(slots, homes)
    for slot in slots:
        yield from _slot_faults(slot, homes, plan)


def gpus_used(plan: Plan, options: PlannerOptions, slots: tuple[GpuSlot, ...]) -> Used:
    """Return the GPUs of each class that the plan takes."""
    used: Counter[GpuClassName] = Counter(slot.gpu_class for slot in slots)
    if options.mode == "compat":
        held = _held(plan, lambda model, pool: (pool.gpu_class, model, pool.position))
        for (gpu_class, _, _), each in held.items():
            used[gpu_class] += math.ceil(each)
    return used


def _held(plan: Plan, group_of: Callable[[ModelName, Pool], G]) -> Mapping[G, Fraction]:
    """Return the GPUs that instances hold together, by group."""
    held: defaultdict[G, Fraction] = defaultdict(Fraction)
    for model in plan.models:
        for pool in model.pools:
            held[group_of(model.model, pool)] += pool.instances * pool.share
    return held


def count_faults(used: Used, cluster: Cluster) -> Iterator[str]:
    """Yield the classes of which more GPUs are used than may be."""
    spare = cluster.options.spare_gpus
    kept = f", {spare} to stay free" if spare else ""
    for each in cluster.gpu_classes:
        count = used.get(each.name, 0)
        if count > max(0, each.count - spare):
            yield f"GPU class {each.name}: {count} GPUs used of {each.count}{kept}"


def price_faults(used: Used, cluster: Cluster) -> Iterator[str]:
    """Yield if the GPUs in use cost more than they may."""
    most = cluster.options.max_price_per_hour
    if most is None:
        return
    price = price_per_hour(used, cluster)
    if price is None:
        yield "max_price_per_hour: not every GPU class has a price"
    elif price > most * (1 + TOLERANCE):
        yield f"max_price_per_hour: the GPUs in use cost {price:g}, at most {most:g} asked"


def price_per_hour(used: Used, cluster: Cluster) -> float | None:
    """Return what the GPUs in use cost together; None if a class has no price."""
    parts = []
    for each in cluster.gpu_classes:
        if each.price_per_hour is None:
            return None
        parts.append(each.price_per_hour * used.get(each.name, 0))
    return math.fsum(parts)


def _missing_faults(slots: tuple[GpuSlot, ...], homes: Mapping[PoolId, Home]) -> Iterator[str]:
    """Yield the pools whose instances are not all laid out, each once."""
    placed: defaultdict[PoolId, list[InstanceId]] = defaultdict(list)
    for slot in slots:
        for instance in slot.instances:
            placed[instance.pool].append(instance.id)
    for pool_id in {**homes, **placed}:
        ids = placed[pool_id]
        asked = homes[pool_id][1].instances if pool_id in homes else 0
        if len(ids) != asked:
            yield f"layout: pool {pool_id} has {len(ids)} instances on GPUs, planned {asked}"
        elif len(set(ids)) != asked:
            yield f"layout: pool {pool_id} has an instance that is laid out twice"


def _slot_faults(slot: GpuSlot, homes: Mapping[PoolId, Home], plan: Plan) -> Iterator[str]:
    known = [each for each in slot.instances if each.pool in homes]
    guests = [homes[each.pool] for each in known]
    names = ", ".join(each.id for each in slot.instances)
    if any(pool.gpu_class != slot.gpu_class for _, pool in guests):
        yield f"layout: a GPU of class {slot.gpu_class} holds another's ({names})"
    if any(each.share != homes[each.pool][1].share for each in known):
        yield f"layout: a GPU of class {slot.gpu_class} holds other shares than planned ({names})"
    held = sum((pool.share for _, pool in guests), Fraction())
    if held > 1:
        yield f"layout: a GPU of class {slot.gpu_class} holds {held} of itself ({names})"
    stages = {(model, pool.position) for model, pool in guests}
    if plan.packing == "per-stage" and len(stages) > 1:
        yield f"layout: a GPU of class {slot.gpu_class} holds different stages ({names})"

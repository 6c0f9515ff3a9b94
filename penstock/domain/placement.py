"""Which instances share a GPU: the plan's pools laid out on anonymous GPUs of each class.

A slot is one GPU's worth of instances. A worker that joins takes a free slot of its class.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction

from penstock.domain.ids import GpuClassName, InstanceId, ModelName, PoolId
from penstock.domain.plan import Plan, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInstance:
    """One instance of a pool, before it has a device."""

    id: InstanceId
    model: ModelName
    pool: PoolId
    share: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSlot:
    """Instances that share one GPU of a class; their shares sum to at most 1."""

    gpu_class: GpuClassName
    instances: tuple[PlannedInstance, ...]


def gpu_slots(plan: Plan) -> tuple[GpuSlot, ...]:
    """Lay the plan's instances out on GPUs.

    Instances of one model and stage position share GPUs, those of others do not, as the
    planner counts them (PPipe rounds GPUs up per model and stage position). First fit by
    decreasing share inside such a group.

    Returns:
        Slots in a fixed order: equal plans give equal slots.
    """
    slots: list[GpuSlot] = []
    for model in plan.models:
        groups: defaultdict[tuple[int, GpuClassName], list[Pool]] = defaultdict(list)
        for pool in model.pools:
            groups[pool.position, pool.gpu_class].append(pool)
        for (_, gpu_class), pools in sorted(groups.items()):
            instances = [
                PlannedInstance(
                    id=InstanceId(f"{pool.id}/{number}"),
                    model=model.model,
                    pool=pool.id,
                    share=pool.share,
                )
                for pool in pools
                for number in range(pool.instances)
            ]
            slots.extend(_first_fit(gpu_class, instances))
    return tuple(slots)


def _first_fit(gpu_class: GpuClassName, instances: list[PlannedInstance]) -> list[GpuSlot]:
    bins: list[list[PlannedInstance]] = []
    free: list[Fraction] = []
    for instance in sorted(instances, key=lambda each: (-each.share, each.id)):
        for index, room in enumerate(free):
            if room >= instance.share:
                bins[index].append(instance)
                free[index] -= instance.share
                break
        else:
            bins.append([instance])
            free.append(1 - instance.share)
    return [GpuSlot(gpu_class=gpu_class, instances=tuple(each)) for each in bins]

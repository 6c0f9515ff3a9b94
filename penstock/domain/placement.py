"""Which instances share a GPU: the plan's pools laid out on anonymous GPUs of each class.

A slot is one GPU's worth of instances. A worker that joins takes a free slot of its class.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TypeAlias

from penstock.domain.ids import GpuClassName, InstanceId, ModelName, PoolId
from penstock.domain.packing import Counts, gpu_layout
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
    """Instances that share one GPU of a class; their shares sum to at most 1.

    They may be of several models and stages if the plan's packing is ``whole-gpu``.
    """

    gpu_class: GpuClassName
    instances: tuple[PlannedInstance, ...]


_Instances: TypeAlias = tuple[PlannedInstance, ...]


def gpu_slots(plan: Plan) -> tuple[GpuSlot, ...]:
    """Lay the plan's instances out on the fewest GPUs that its packing allows.

    With ``per-stage`` only instances of one model and stage position share GPUs, with
    ``whole-gpu`` all instances of a class do. Those of one pool stay together where that costs no
    further GPU.

    Returns:
        Slots in a fixed order: equal plans give equal slots.
    """
    return tuple(
        GpuSlot(gpu_class=gpu_class, instances=instances)
        for gpu_class, pools in _groups(plan)
        for instances in _lay_out(pools)
    )


def _groups(plan: Plan) -> list[tuple[GpuClassName, list[_Instances]]]:
    """Return the pools whose instances may share GPUs, and the class of those."""
    groups: defaultdict[tuple[int, int, GpuClassName], list[_Instances]] = defaultdict(list)
    for number, model in enumerate(plan.models):
        for pool in model.pools:
            among = (number, pool.position) if plan.packing == "per-stage" else (0, 0)
            groups[*among, pool.gpu_class].append(_instances(model.model, pool))
    return [(key[-1], groups[key]) for key in sorted(groups)]


def _instances(model: ModelName, pool: Pool) -> _Instances:
    return tuple(
        PlannedInstance(
            id=InstanceId(f"{pool.id}/{number}"), model=model, pool=pool.id, share=pool.share
        )
        for number in range(pool.instances)
    )


def _lay_out(pools: Sequence[_Instances]) -> list[_Instances]:
    """Return the instances of each GPU; GPUs that one pool fills by itself come first."""
    filled: list[_Instances] = []
    rests: list[_Instances] = []
    for pool in pools:
        per_gpu = pool[0].share.denominator if pool else 1
        whole = len(pool) - len(pool) % per_gpu
        filled += (pool[at : at + per_gpu] for at in range(0, whole, per_gpu))
        rests.append(pool[whole:])
    together = [*filled, *_first_fit(rest for rest in rests if rest)]
    layout = gpu_layout(Counter(each.share.denominator for each in chain(*pools)))
    return together if len(together) == len(layout) else _deal(chain(*filled, *rests), layout)


def _first_fit(rests: Iterable[_Instances]) -> list[_Instances]:
    """Lay out what the pools leave over, largest first, without tearing any apart."""
    gpus: list[_Instances] = []
    free: list[Fraction] = []
    for rest in sorted(rests, key=_size, reverse=True):
        size = _size(rest)
        place = next((at for at, room in enumerate(free) if room >= size), len(gpus))
        if place == len(gpus):
            gpus.append(())
            free.append(Fraction(1))
        gpus[place] += rest
        free[place] -= size
    return gpus


def _size(pool: _Instances) -> Fraction:
    """Return what instances of one pool hold together."""
    return len(pool) * pool[0].share


def _deal(instances: Iterable[PlannedInstance], layout: Iterable[Counts]) -> list[_Instances]:
    """Put instances, in their order, where the layout has their shares."""
    waiting: defaultdict[int, deque[PlannedInstance]] = defaultdict(deque)
    for each in instances:
        waiting[each.share.denominator].append(each)
    return [tuple(waiting[m].popleft() for m in gpu) for gpu in layout]

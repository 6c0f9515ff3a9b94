"""DART-r, PPipe's second baseline: pairs of GPUs, each with a pipeline of its own.

GPUs are divided among the models as no-partition divides them, and what it leaves is dealt out
evenly, as far as it goes round. Within a model, a GPU of one class and a GPU of another form a
pair that runs a two-stage pipeline, in either order, whatever cut and batch are best. GPUs without
a partner, and all GPUs where pairs gain nothing, run the whole model. Only whole GPUs.

The published study has two GPU classes. With more, the pairs that gain most are formed first.
Knows no solver: nothing here is searched for longer than a list of cuts and batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, pairwise, permutations
from typing import TypeAlias

from penstock.domain.cluster import GpuClass
from penstock.domain.errors import Infeasible
from penstock.domain.ids import GpuClassName, ModelName
from penstock.latency.transfer import sample_transfer_us
from planner.candidates import CandidatePath, CandidatePool, batch_build_us
from planner.inputs import ModelInputs, PlannerInputs
from planner.solution import Solution

Division: TypeAlias = Mapping[tuple[ModelName, GpuClassName], int]

_WHOLE = Fraction(1)


def gpus_held(instances: Mapping[CandidatePool, int]) -> Division:
    """Return how many GPUs each model has of each class in a solution of whole GPUs."""
    held: Counter[tuple[ModelName, GpuClassName]] = Counter()
    for pool, count in instances.items():
        held[pool.model, pool.gpu_class.name] += count
    return held


def deal_out(inputs: PlannerInputs, held: Division) -> Division:
    """Return the division in which every model got an equal part of the GPUs left over."""
    names = [model.served.name for model in inputs.models]
    dealt = {}
    for each in inputs.gpu_classes:
        left = each.count - sum(held.get((name, each.name), 0) for name in names)
        for name in names:
            dealt[name, each.name] = held.get((name, each.name), 0) + left // len(names)
    return dealt


def plan_dart_r(
    inputs: PlannerInputs, rates: Mapping[ModelName, float], held: Division
) -> Solution:
    """Return what DART-r makes of the fleet.

    Args:
        inputs: cluster, models and options; shares and the number of stages are not looked at.
        rates: samples/s at which batches fill.
        held: GPUs that no-partition gives each model of each class; a missing one is 0.

    Raises:
        Infeasible: a model has no GPU that serves it within its SLO, alone or in a pair.
    """
    dealt = deal_out(inputs, held)
    used: dict[CandidatePath, int] = {}
    for model in inputs.models:
        name = model.served.name
        gpus = {each: dealt[name, each.name] for each in inputs.gpu_classes}
        used |= _paired(model, inputs, rates[name], gpus)
    flows = {path: count * path.instance_rps for path, count in used.items()}
    objective = _least_weighted(inputs, flows)
    return Solution(
        instances={pool: count for path, count in used.items() for pool in path.pools},
        flows=flows,
        objective_rps=objective,
        value=objective,
        bound=objective,  # of plans of this kind: nothing else was looked at
        status="optimal",
    )


def _paired(
    model: ModelInputs, inputs: PlannerInputs, rate_rps: float, gpus: Mapping[GpuClass, int]
) -> dict[CandidatePath, int]:
    """Return the model's paths and how many GPUs, or pairs of them, run each."""
    left = dict(gpus)
    alone = {each: _best(_paths(model, inputs, rate_rps, [each])) for each in gpus}
    used: dict[CandidatePath, int] = {}
    for path in _gainful_pairs(model, inputs, rate_rps, alone):
        first, second = (pool.gpu_class for pool in path.pools)
        count = min(left[first], left[second])
        left[first] -= count
        left[second] -= count
        used[path] = count
    used |= {path: left[each] for each, path in alone.items() if path is not None}
    return {path: count for path, count in used.items() if count > 0}


def _gainful_pairs(
    model: ModelInputs,
    inputs: PlannerInputs,
    rate_rps: float,
    alone: Mapping[GpuClass, CandidatePath | None],
) -> list[CandidatePath]:
    """Return the best pipeline of each pair of classes that beats its two GPUs apart."""
    gains: dict[CandidatePath, float] = {}
    for pair in combinations(alone, 2):
        both_orders = (
            path for order in permutations(pair) for path in _paths(model, inputs, rate_rps, order)
        )
        best = _best(both_orders)
        if best is not None:
            gains[best] = best.instance_rps - sum(_rps(alone[each]) for each in pair)
    return sorted((path for path in gains if gains[path] > 0), key=lambda path: -gains[path])


def _best(paths: Iterator[CandidatePath]) -> CandidatePath | None:
    """Return the path of most throughput, then least latency; the first among equals."""
    return max(paths, key=lambda path: (path.instance_rps, -path.latency_us), default=None)


def _rps(path: CandidatePath | None) -> float:
    return 0.0 if path is None else path.instance_rps


def _paths(
    model: ModelInputs, inputs: PlannerInputs, rate_rps: float, gpu_classes: Sequence[GpuClass]
) -> Iterator[CandidatePath]:
    """Yield the ways through one whole GPU of each class, in that order, within the SLO."""
    options = inputs.options
    tables = [model.latencies[each.name] for each in gpu_classes]
    batches = set.intersection(*(set(table.batches(_WHOLE)) for table in tables))
    for batch in sorted(each for each in batches if each <= options.max_batch):
        build_us = batch_build_us(batch, rate_rps, options.batch_build_factor)
        fixed_us = build_us + (len(gpu_classes) + 1) * options.hop_overhead_us
        for cuts in combinations(range(1, model.blocks), len(gpu_classes) - 1):
            pools = _pools(model, gpu_classes, (0, *cuts, model.blocks), batch)
            sizes = tuple(model.cut_bytes[cut - 1] for cut in cuts)
            transfers = tuple(
                sample_transfer_us(size, sender, receiver)
                for size, (sender, receiver) in zip(sizes, pairwise(gpu_classes), strict=True)
            )
            busy_us = sum(pool.latency_us for pool in pools) + batch * sum(transfers)
            path = CandidatePath(
                model=model.served.name,
                pools=pools,
                cut_bytes=sizes,
                transfers_us=transfers,
                batch_build_us=build_us,
                latency_us=fixed_us + busy_us,
            )
            in_time = path.latency_us <= model.budget_us
            if in_time and all(pool.memory_bytes <= pool.gpu_class.memory_bytes for pool in pools):
                yield path


def _pools(
    model: ModelInputs, gpu_classes: Sequence[GpuClass], bounds: Sequence[int], batch: int
) -> tuple[CandidatePool, ...]:
    # A class may be paired with two others, by the same blocks: pools are still not shared.
    route = tuple(each.name for each in gpu_classes)
    return tuple(
        CandidatePool(
            model=model.served.name,
            position=position,
            first_block=first,
            end_block=end,
            gpu_class=gpu_class,
            m=1,
            batch=batch,
            latency_us=model.latencies[gpu_class.name].stage_latency_us(first, end, batch, _WHOLE),
            memory_bytes=model.stage_memory_bytes(first, end, batch),
            route=route,
        )
        for position, (gpu_class, (first, end)) in enumerate(
            zip(gpu_classes, pairwise(bounds), strict=True)
        )
    )


def _least_weighted(inputs: PlannerInputs, flows: Mapping[CandidatePath, float]) -> float:
    """Return the least throughput divided by weight.

    Raises:
        Infeasible: a model has none.
    """
    totals = {model.served.name: 0.0 for model in inputs.models}
    for path, flow in flows.items():
        totals[path.model] += flow
    idle = [name for name, total in totals.items() if total == 0]
    if idle:
        reason = "none of its GPUs serves it within the SLO, alone or in a pair"
        raise Infeasible(f"{name}: {reason}" for name in idle)
    return min(totals[model.served.name] / model.served.weight for model in inputs.models)

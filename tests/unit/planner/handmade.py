"""Plans written by hand: stages, instances and flows are given, all that follows is worked out.

No planner, no solver: what is wrong with such a plan was put there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from penstock.domain.cluster import Cluster
from penstock.domain.ids import GpuClassName, ModelName, PipelineId, PoolId
from penstock.domain.plan import (
    ModelPlan,
    ObjectiveUnit,
    Pipeline,
    Plan,
    PlannedClass,
    Pool,
    SolveReport,
    Transfer,
)
from planner.inputs import Profiles


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks [first, end) on 1/m of a GPU; stages of one model with equal fields share a pool."""

    blocks: tuple[int, int]
    gpu_class: str
    batch: int = 1
    m: int = 1
    instances: int = 1
    private: str = ""  # tells pools apart that are otherwise the same


Way = tuple[float, Sequence[Stage]]  # flow in samples/s, stages


def plan_by_hand(
    cluster: Cluster,
    profiles: Profiles,
    ways: Mapping[str, Sequence[Way]],
    *,
    gpus: int = 0,
    price: float = 0.0,
) -> Plan:
    """Return a plan without a fault, if the ways have none.

    Args:
        cluster: what it is for.
        profiles: by model and GPU class.
        ways: pipelines by model.
        gpus: how many GPUs they take: the value where fewest GPUs are sought.
        price: of these GPUs: the value where the least cost is sought.
    """
    models = tuple(
        _model_plan(cluster, profiles, number, ways[model.name])
        for number, model in enumerate(cluster.models)
    )
    options = cluster.options
    least = min(model.throughput_rps / model.weight for model in models)
    values: dict[str, tuple[float, ObjectiveUnit]] = {
        "max-min": (least, "rps"),
        "goodput": (sum(model.throughput_rps for model in models), "rps"),
        "least-cost": (price, "per-hour"),
        "fewest-gpus": (gpus, "gpus"),
    }
    value, unit = values[options.objective]
    return Plan(
        gpu_classes=tuple(
            PlannedClass(
                name=each.name,
                count=each.count,
                memory_bytes=each.memory_bytes,
                gpus_per_server=each.gpus_per_server,
                network_gbps=each.network_gbps,
                price_per_hour=each.price_per_hour,
            )
            for each in cluster.gpu_classes
        ),
        models=models,
        hop_overhead_us=options.hop_overhead_us,
        packing="per-stage" if options.mode == "compat" else options.packing,
        solve=SolveReport(
            solver="none",
            formulation=options.mode,
            objective=options.objective,
            status="optimal",
            objective_rps=least,
            value=value,
            bound=value,
            unit=unit,
            gap=0.0,
            seconds=0.0,
            seed=0,
        ),
    )


def _model_plan(
    cluster: Cluster, profiles: Profiles, number: int, ways: Sequence[Way]
) -> ModelPlan:
    served, options = cluster.models[number], cluster.options
    first = next(each for (name, _), each in profiles.items() if name == served.name)
    total = sum(flow for flow, _ in ways)
    pools = {
        (position, stage): _pool(served.name, position, stage, profiles, options.workspace_bytes)
        for _, stages in ways
        for position, stage in enumerate(stages)
    }
    asked_us = round(served.slo_us * options.slo_margin)
    return ModelPlan(
        model=served.name,
        blocks=first.blocks,
        slo_us=served.slo_us,
        weight=served.weight,
        margin_us=asked_us if served.margin_us is None else served.margin_us,
        throughput_rps=total,
        pools=tuple(pools.values()),
        pipelines=tuple(
            _pipeline(
                f"{served.name}.p{place}",
                [pools[each] for each in enumerate(stages)],
                flow,
                total,
                cluster,
                first.cut_bytes,
            )
            for place, (flow, stages) in enumerate(ways)
        ),
        blocks_digest=first.blocks_digest,
    )


def _pool(
    model: ModelName, position: int, stage: Stage, profiles: Profiles, workspace_bytes: int
) -> Pool:
    profile = profiles[model, GpuClassName(stage.gpu_class)]
    blocks, share = range(*stage.blocks), Fraction(1, stage.m)
    sums = {
        batch: sum(
            row.latency_mean_us
            for row in profile.rows
            if (row.share, row.batch) == (share, batch) and row.block in blocks
        )
        for batch in {row.batch for row in profile.rows if row.share == share}
    }
    of_size = (
        sums[min(batch for batch in sums if batch >= size)] for size in range(1, stage.batch + 1)
    )
    needed = sum(profile.weight_bytes[block] for block in blocks) + workspace_bytes
    return Pool(
        id=PoolId(
            f"{model}.{position}.{stage.gpu_class}.1of{stage.m}."
            f"{blocks[0]}-{blocks[-1]}.b{stage.batch}{stage.private}"
        ),
        position=position,
        first_block=blocks[0],
        end_block=blocks[-1] + 1,
        gpu_class=profile.gpu_class,
        share=share,
        batch=stage.batch,
        instances=stage.instances,
        latency_us_by_batch=tuple(of_size),
        memory_bytes=needed
        + stage.batch * max(profile.activation_bytes[block] for block in blocks),
    )


def _pipeline(
    name: str,
    pools: Sequence[Pool],
    flow: float,
    total: float,
    cluster: Cluster,
    cut_bytes: Sequence[int],
) -> Pipeline:
    gbps = {each.name: each.network_gbps for each in cluster.gpu_classes}
    sizes = [cut_bytes[pool.end_block - 1] for pool in pools[:-1]]
    links = [min(gbps[each.gpu_class] for each in pair) for pair in pairwise(pools)]
    times = [math.ceil(size * 8 / (each * 1000)) for size, each in zip(sizes, links, strict=True)]
    groups = [max(pool.batch for pool in pools[: place + 1]) for place in range(len(pools))]
    spent = sum(
        group // pool.batch * pool.latency_us for group, pool in zip(groups, pools, strict=True)
    )
    spent += sum(group * each for group, each in zip(groups, times, strict=False))
    build = math.ceil(cluster.options.batch_build_factor * (groups[-1] - 1) * 1e6 / total)
    return Pipeline(
        id=PipelineId(name),
        pools=tuple(pool.id for pool in pools),
        transfers=tuple(
            Transfer(bytes_per_sample=size, us_per_sample=each)
            for size, each in zip(sizes, times, strict=True)
        ),
        throughput_rps=flow,
        batch_build_us=build,
        latency_us=spent + build + cluster.options.hop_overhead_us * (len(pools) + 1),
    )

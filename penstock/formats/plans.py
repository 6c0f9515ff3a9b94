"""``plan.json``: the domain's plan field for field, in canonical JSON.

Reading checks that a plan hangs together. Whether the fleet can carry it is the verifier's
business, not this module's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from penstock.domain.cluster import Objective
from penstock.domain.errors import InvalidPlan
from penstock.domain.ids import PoolId
from penstock.domain.plan import ModelPlan, ObjectiveUnit, Pipeline, Plan, Pool, SolveReport
from penstock.formats.checks import (
    check_any,
    check_at_least,
    check_each_at_least,
    check_length,
    check_name,
    check_positive,
    check_sha256,
    check_text,
    check_unique,
)
from penstock.formats.documents import Document
from penstock.formats.sources import Source, inside, show

PLAN = Document("penstock.plan/1", Plan)

_UNITS: Mapping[Objective, ObjectiveUnit] = MappingProxyType(
    {"max-min": "rps", "goodput": "rps", "least-cost": "per-hour", "fewest-gpus": "gpus"}
)


def read_plan(text: str, source: str) -> Plan:
    """Read ``plan.json``.

    Raises:
        InvalidPlan: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidPlan)
    plan = PLAN.read(text, where)
    _check_classes(plan, where)
    check_any(where, "models", plan.models)
    _check_ids(plan, where)
    for index, model in enumerate(plan.models):
        _check_model(plan, model, where, inside("models", index))
    check_at_least(where, "", plan, hop_overhead_us=0)
    _check_solve(plan.solve, where)
    for index, each in enumerate(plan.inputs):
        check_text(where, inside("inputs", index, "name"), each.name)
        check_sha256(where, inside("inputs", index, "sha256"), each.sha256)
    return plan


def write_plan(plan: Plan) -> str:
    """Write ``plan.json``; equal plans give equal bytes.

    Raises:
        ValueError: a number in the plan is infinite or not a number.
    """
    return PLAN.write(plan)


def _check_classes(plan: Plan, source: Source) -> None:
    check_any(source, "gpu_classes", plan.gpu_classes)
    for index, each in enumerate(plan.gpu_classes):
        place = inside("gpu_classes", index)
        check_name(source, inside(place, "name"), each.name)
        check_at_least(source, place, each, count=1, gpus_per_server=1)
        check_positive(source, place, each, "memory_bytes", "network_gbps")
        if each.price_per_hour is not None:
            check_at_least(source, place, each, price_per_hour=0)


def _check_solve(solve: SolveReport, source: Source) -> None:
    check_at_least(source, "solve", solve, objective_rps=0, value=0, bound=0, gap=0, seconds=0)
    if solve.gap > 1:
        raise source.invalid(inside("solve", "gap"), "at most 1", show(solve.gap))
    unit = _UNITS[solve.objective]
    if solve.unit != unit:
        expected = f"{unit!r}, the unit of objective {solve.objective}"
        raise source.invalid(inside("solve", "unit"), expected, show(solve.unit))
    for index, phase in enumerate(solve.phases):
        place = inside("solve", "phases", index)
        check_text(source, inside(place, "name"), phase.name)
        check_at_least(source, place, phase, seconds=0)


def _check_ids(plan: Plan, source: Source) -> None:
    """Instances are named after pools and metrics after pipelines, so ids hold plan-wide."""
    models = list(enumerate(plan.models))
    check_unique(
        source, ((inside("gpu_classes", i, "name"), c.name) for i, c in enumerate(plan.gpu_classes))
    )
    check_unique(source, ((inside("models", i, "model"), m.model) for i, m in models))
    check_unique(
        source,
        (
            (inside("models", i, "pools", j, "id"), pool.id)
            for i, model in models
            for j, pool in enumerate(model.pools)
        ),
    )
    check_unique(
        source,
        (
            (inside("models", i, "pipelines", j, "id"), pipeline.id)
            for i, model in models
            for j, pipeline in enumerate(model.pipelines)
        ),
    )


def _check_model(plan: Plan, model: ModelPlan, source: Source, place: str) -> None:
    check_name(source, inside(place, "model"), model.model)
    check_at_least(source, place, model, blocks=1, slo_us=1, margin_us=0)
    check_positive(source, place, model, "weight", "throughput_rps")
    if model.margin_us >= model.slo_us:
        expected = f"less than slo_us ({model.slo_us})"
        raise source.invalid(inside(place, "margin_us"), expected, show(model.margin_us))
    if model.blocks_digest:
        check_sha256(source, inside(place, "blocks_digest"), model.blocks_digest)
    if model.execution.max_error is not None:
        check_positive(source, inside(place, "execution"), model.execution, "max_error")
    classes = {each.name for each in plan.gpu_classes}
    for index, pool in enumerate(model.pools):
        within = inside(place, "pools", index)
        if pool.gpu_class not in classes:
            expected = f"one of gpu_classes ({', '.join(sorted(classes))})"
            raise source.invalid(inside(within, "gpu_class"), expected, show(pool.gpu_class))
        _check_pool(model, pool, source, within)
    check_any(source, inside(place, "pipelines"), model.pipelines)
    pools = {pool.id: pool for pool in model.pools}
    for index, pipeline in enumerate(model.pipelines):
        _check_pipeline(model, pools, pipeline, source, inside(place, "pipelines", index))


def _check_pool(model: ModelPlan, pool: Pool, source: Source, place: str) -> None:
    check_text(source, inside(place, "id"), pool.id)
    check_at_least(
        source, place, pool, position=0, first_block=0, batch=1, instances=1, memory_bytes=0
    )
    if not pool.first_block < pool.end_block <= model.blocks:
        expected = f"more than first_block ({pool.first_block}), at most blocks ({model.blocks})"
        raise source.invalid(inside(place, "end_block"), expected, show(pool.end_block))
    latencies = inside(place, "latency_us_by_batch")
    check_length(
        source, latencies, pool.latency_us_by_batch, pool.batch, "one for each batch up to `batch`"
    )
    check_each_at_least(source, latencies, pool.latency_us_by_batch, 1)


def _check_pipeline(
    model: ModelPlan, pools: dict[PoolId, Pool], pipeline: Pipeline, source: Source, place: str
) -> None:
    check_text(source, inside(place, "id"), pipeline.id)
    check_any(source, inside(place, "pools"), pipeline.pools)
    check_positive(source, place, pipeline, "throughput_rps")
    check_at_least(source, place, pipeline, batch_build_us=0, latency_us=1)
    _check_coverage(model, pools, pipeline, source, inside(place, "pools"))
    _check_batches(pools, pipeline, source, inside(place, "pools"))
    within = inside(place, "transfers")
    check_length(source, within, pipeline.transfers, len(pipeline.pools) - 1, "one for each cut")
    for index, transfer in enumerate(pipeline.transfers):
        check_at_least(source, inside(within, index), transfer, bytes_per_sample=0, us_per_sample=0)


def _check_coverage(
    model: ModelPlan, pools: dict[PoolId, Pool], pipeline: Pipeline, source: Source, place: str
) -> None:
    end_block = 0
    for position, pool_id in enumerate(pipeline.pools):
        within = inside(place, position)
        if pool_id not in pools:
            raise source.invalid(within, "the id of one of the model's pools", show(pool_id))
        pool = pools[pool_id]
        if pool.position != position:
            found = f"{pool_id!r} of position {pool.position}"
            raise source.invalid(within, f"a pool of position {position}", found)
        if pool.first_block != end_block:
            found = f"{pool_id!r} that starts at block {pool.first_block}"
            raise source.invalid(within, f"a pool that starts at block {end_block}", found)
        end_block = pool.end_block
    if end_block != model.blocks:
        expected = f"pools that cover all {model.blocks} blocks once"
        raise source.invalid(place, expected, f"the end at block {end_block}")


def _check_batches(
    pools: dict[PoolId, Pool], pipeline: Pipeline, source: Source, place: str
) -> None:
    """Samples are gathered into, or split into, whole batches of the next stage."""
    largest = 1
    for position, pool_id in enumerate(pipeline.pools):
        batch = pools[pool_id].batch
        if largest % batch and batch % largest:
            expected = f"a batch that divides {largest}, the largest before, or is a multiple of it"
            found = f"{pool_id!r} of batch {batch}"
            raise source.invalid(inside(place, position), expected, found)
        largest = max(largest, batch)

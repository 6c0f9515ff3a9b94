"""A plan in words: where every model runs, what its latency is made of, what is used up.

Reads the plan alone. What binds is read off the use of pools and GPUs, not from the solver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from penstock.domain.ids import GpuClassName
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool
from penstock.domain.units import US_PER_SECOND, Micros, ms_from_micros

_COARSE_MS = 10.0  # from here one decimal says enough
_FULL = 0.999  # use from which a resource counts as used up


def explain(plan: Plan) -> str:
    """Return the plan in words, a few lines per model."""
    return "\n".join(_lines(plan))


def facts(plan: Plan) -> dict[str, Any]:
    """Return what `explain` tells, as plain values for programs."""
    return {
        "gpus_used": dict(gpus_used(plan)),
        "objective_rps": plan.solve.objective_rps,
        "gap": plan.solve.gap,
        "binding": _binding(plan),
        "models": [
            {
                "model": model.model,
                "throughput_rps": model.throughput_rps,
                "slo_us": model.slo_us,
                "margin_us": model.margin_us,
                "pipelines": [_pipeline_facts(each, model, plan) for each in model.pipelines],
            }
            for model in plan.models
        ],
    }


def _pipeline_facts(pipeline: Pipeline, model: ModelPlan, plan: Plan) -> dict[str, Any]:
    return {
        "id": pipeline.id,
        "stages": [_stage(model.pool(each), model) for each in pipeline.pools],
        "throughput_rps": pipeline.throughput_rps,
        "latency_us": pipeline.latency_us,
        "budget": _budget(pipeline, model, plan),
        "pool_use": {
            each: round(_use(model.pool(each), model, plan)[0], 6) for each in pipeline.pools
        },
    }


def gpus_used(plan: Plan) -> dict[GpuClassName, int]:
    """Return the GPUs of each class that hold at least one instance."""
    used = Counter(slot.gpu_class for slot in gpu_slots(plan))
    return {each.name: used[each.name] for each in plan.gpu_classes}


def _lines(plan: Plan) -> Iterator[str]:
    for model in plan.models:
        yield from _model_lines(model, plan)
    used = gpus_used(plan)
    told = ", ".join(f"{used[each.name]} of {each.count} {each.name}" for each in plan.gpu_classes)
    yield f"GPUs used: {told}"
    yield _binding(plan)
    solve = plan.solve
    gap = "proven best" if solve.gap <= 0 else f"within {solve.gap:.2%} of the bound"
    yield f"Found by {solve.solver} ({solve.formulation}) in {solve.seconds:.2f} s, {gap}"


def _model_lines(model: ModelPlan, plan: Plan) -> Iterator[str]:
    yield (
        f"{model.model}: {model.throughput_rps:.1f} samples/s within {_ms(model.slo_us)} "
        f"(weight {model.weight:g})"
    )
    for pipeline in model.pipelines:
        way = " → ".join(_stage(model.pool(each), model) for each in pipeline.pools)
        part = f", {pipeline.throughput_rps:.1f} samples/s" if len(model.pipelines) > 1 else ""
        yield f"  {way}{part}"
        yield f"    {_budget(pipeline, model, plan)}"


def _stage(pool: Pool, model: ModelPlan) -> str:
    last = pool.end_block - 1
    blocks = f"block {last}" if pool.first_block == last else f"blocks {pool.first_block}-{last}"
    share = "" if pool.share == 1 else f"{pool.share} of "
    users = sum(pool.id in pipeline.pools for pipeline in model.pipelines)
    shared = f", shared by {users} pipelines" if users > 1 else ""
    return (
        f"{blocks} on {pool.instances}× {share}{pool.gpu_class} "
        f"(batch {pool.batch}, {_ms(pool.latency_us)}{shared})"
    )


def _budget(pipeline: Pipeline, model: ModelPlan, plan: Plan) -> str:
    pools = [model.pool(each) for each in pipeline.pools]
    batch = pools[0].batch
    parts = (
        ("compute", sum(pool.latency_us for pool in pools)),
        ("transfer", batch * sum(each.us_per_sample for each in pipeline.transfers)),
        ("hops", plan.hop_overhead_us * (len(pools) + 1)),
        ("batch building", pipeline.batch_build_us),
        ("margin", model.margin_us),
        ("spare", model.slo_us - model.margin_us - pipeline.latency_us),
    )
    told = " + ".join(f"{name} {_ms(us)}" for name, us in parts if us)
    return f"{_ms(model.slo_us)} = {told}"


def _binding(plan: Plan) -> str:
    """Name what stops the least served model: the pools it fills, and the classes used up."""
    model = min(plan.models, key=lambda each: each.throughput_rps / each.weight)
    full = [
        f"{use[1]} in {_stage(pool, model)}"
        for pool in model.pools
        if (use := _use(pool, model, plan))[0] >= _FULL
    ]
    used = gpus_used(plan)
    gone = [each.name for each in plan.gpu_classes if used[each.name] == each.count]
    pools = f"full: {'; '.join(full)}" if full else "no pool is full"
    classes = f"no GPU left of {', '.join(gone)}" if gone else "GPUs are left of every class"
    return f"{model.model} binds; {pools}; {classes}"


def _use(pool: Pool, model: ModelPlan, plan: Plan) -> tuple[float, str]:
    """Return how busy a pool is, 1 being always, and with what."""
    gpu_class = next(each for each in plan.gpu_classes if each.name == pool.gpu_class)
    sharers = pool.share.denominator * gpu_class.gpus_per_server
    busy = {"computing": 0.0, "receiving": 0.0, "sending": 0.0}
    for pipeline in model.pipelines:
        if pool.id not in pipeline.pools:
            continue
        place, flow = pipeline.pools.index(pool.id), pipeline.throughput_rps
        busy["computing"] += flow * pool.latency_us / pool.batch
        if place:
            busy["receiving"] += flow * sharers * pipeline.transfers[place - 1].us_per_sample
        if place < len(pipeline.transfers):
            busy["sending"] += flow * sharers * pipeline.transfers[place].us_per_sample
    most = max(busy, key=busy.__getitem__)
    return busy[most] / (US_PER_SECOND * pool.instances), most


def _ms(us: Micros) -> str:
    ms = ms_from_micros(us)
    return f"{ms:.1f} ms" if ms >= _COARSE_MS else f"{ms:.2f} ms"

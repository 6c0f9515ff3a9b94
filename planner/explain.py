"""A plan in words: where every model runs, what its latency is made of, what is used up.

Reads the plan alone. What binds is read off the use of pools and GPUs, not from the solver; what
more would be worth needs the inputs too: `planner.outlook`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool, SolveReport
from planner.usage import cost_per_hour, gpus_used, latency_parts, least_served, pool_use
from planner.words import blocks, milliseconds, part_of, valued

_SOUGHT = {
    "max-min": "the most of the least throughput per unit of weight",
    "goodput": "most throughput of all models together",
    "least-cost": "least cost for the rates asked",
    "fewest-gpus": "fewest GPUs for the rates asked",
}
_LEAST_TOLD = 5e-5  # a gap below this reads as 0.00 %


def explain(plan: Plan) -> str:
    """Return the plan in words, a few lines per model."""
    return "\n".join(_lines(plan))


def facts(plan: Plan) -> dict[str, Any]:
    """Return what `explain` tells, as plain values for programs."""
    solve = plan.solve
    return {
        "gpus_used": dict(gpus_used(plan)),
        "cost_per_hour": cost_per_hour(plan),
        "packing": plan.packing,
        "objective": solve.objective,
        "objective_rps": solve.objective_rps,
        "value": solve.value,
        "bound": solve.bound,
        "unit": solve.unit,
        "gap": solve.gap,
        "status": solve.status,
        "binding": _binding(plan),
        "models": [_model_facts(model, plan) for model in plan.models],
    }


def _model_facts(model: ModelPlan, plan: Plan) -> dict[str, Any]:
    return {
        "model": model.model,
        "throughput_rps": model.throughput_rps,
        "slo_us": model.slo_us,
        "margin_us": model.margin_us,
        "pipelines": [_pipeline_facts(each, model, plan) for each in model.pipelines],
    }


def _pipeline_facts(pipeline: Pipeline, model: ModelPlan, plan: Plan) -> dict[str, Any]:
    uses = {each: pool_use(model.pool(each), model, plan) for each in pipeline.pools}
    return {
        "id": pipeline.id,
        "stages": [_stage(model.pool(each), model) for each in pipeline.pools],
        "throughput_rps": pipeline.throughput_rps,
        "latency_us": pipeline.latency_us,
        "latency_parts": asdict(latency_parts(pipeline, model, plan)),
        "budget": _budget(pipeline, model, plan),
        "pool_use": {name: round(use.part, 6) for name, use in uses.items()},
    }


def _lines(plan: Plan) -> Iterator[str]:
    for model in plan.models:
        yield from _model_lines(model, plan)
    used = gpus_used(plan)
    told = ", ".join(f"{used[each.name]} of {each.count} {each.name}" for each in plan.gpu_classes)
    cost = cost_per_hour(plan)
    yield f"GPUs used: {told}" + ("" if cost is None else f"; {cost:.2f} per hour")
    yield _binding(plan)
    yield from _solve_lines(plan.solve)


def _solve_lines(solve: SolveReport) -> Iterator[str]:
    yield f"Sought: {_SOUGHT[solve.objective]}: {valued(solve.value, solve.unit)}"
    if solve.gap <= 0:
        proof = "proven best"
    elif solve.gap < _LEAST_TOLD:
        proof = "proven best to 0.01%"
    else:
        proof = f"within {solve.gap:.2%} of the bound {valued(solve.bound, solve.unit)}"
    yield f"Found by {solve.solver} ({solve.formulation}) in {solve.seconds:.2f} s, {proof}"


def _model_lines(model: ModelPlan, plan: Plan) -> Iterator[str]:
    yield (
        f"{model.model}: {model.throughput_rps:.1f} samples/s within {milliseconds(model.slo_us)} "
        f"(weight {model.weight:g})"
    )
    for pipeline in model.pipelines:
        way = " → ".join(_stage(model.pool(each), model) for each in pipeline.pools)
        part = f", {pipeline.throughput_rps:.1f} samples/s" if len(model.pipelines) > 1 else ""
        yield f"  {way}{part}"
        yield f"    {_budget(pipeline, model, plan)}"


def _stage(pool: Pool, model: ModelPlan) -> str:
    users = sum(pool.id in pipeline.pools for pipeline in model.pipelines)
    shared = f", shared by {users} pipelines" if users > 1 else ""
    return (
        f"{blocks(pool.first_block, pool.end_block)} on "
        f"{pool.instances}× {part_of(pool.share, pool.gpu_class)} "
        f"(batch {pool.batch}, {milliseconds(pool.latency_us)}{shared})"
    )


def _budget(pipeline: Pipeline, model: ModelPlan, plan: Plan) -> str:
    parts = latency_parts(pipeline, model, plan)
    named = (
        ("compute", parts.compute_us),
        ("transfer", parts.transfer_us),
        ("hops", parts.hops_us),
        ("batch building", parts.batch_build_us),
        ("margin", parts.margin_us),
        ("spare", parts.spare_us),
    )
    told = " + ".join(f"{name} {milliseconds(us)}" for name, us in named if us)
    return f"{milliseconds(model.slo_us)} = {told}"


def _binding(plan: Plan) -> str:
    """Name what stops the least served model: the pools it fills, and the classes used up."""
    model = least_served(plan)
    uses = [(pool, pool_use(pool, model, plan)) for pool in model.pools]
    full = [f"{use.work} in {_stage(pool, model)}" for pool, use in uses if use.full]
    used = gpus_used(plan)
    gone = [each.name for each in plan.gpu_classes if used[each.name] == each.count]
    pools = f"full: {'; '.join(full)}" if full else "no pool is full"
    classes = f"no GPU left of {', '.join(gone)}" if gone else "GPUs are left of every class"
    return f"{model.model} binds; {pools}; {classes}"

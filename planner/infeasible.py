"""Why there is no plan: which model, which constraint, by how much.

Asked only after a solve has failed; looks at one constraint at a time, simplest first: memory and
SLO of each model by itself, then GPUs for one instance of everything, then the rates asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from penstock.domain.cluster import ServedModel
from penstock.domain.errors import Infeasible
from penstock.domain.ids import ModelName
from penstock.domain.units import BYTES_PER_GIB, Bytes, Micros, ms_from_micros
from planner.candidates import CandidatePath, Rates, enumerate_paths, model_paths
from planner.formulation import Problem
from planner.inputs import ModelInputs, PlannerInputs, margin_us
from planner.solve import SolverSettings, fewest_extra_gpus, solve

_ALMOST_ALL = 0.9999  # what is not reached is never reported as 100 %
_NO_WEIGHT = 1e-9
_BARELY_USED = 0.01


def infeasible(inputs: PlannerInputs, rates: Rates, settings: SolverSettings) -> Infeasible:
    """Return the error that tells why no plan serves every model at these rates."""
    alone = [reason for model in inputs.models for reason in _alone(model, inputs, rates)]
    reasons = alone or list(_together(inputs, rates, settings))
    return Infeasible(reasons or ["no constraint alone is in the way, all together leave no plan"])


def _alone(model: ModelInputs, inputs: PlannerInputs, rates: Rates) -> Iterator[str]:
    """Yield the reason why one model has no path even on an empty fleet."""
    rate = rates[model.served.name]
    if next(model_paths(model, inputs, rate), None) is not None:
        return
    paths = model_paths(model, inputs, rate, limited=False)
    fastest = min(paths, key=lambda path: path.latency_us, default=None)
    if fastest is None:
        yield _memory_reason(model, inputs)
    else:
        yield _slo_reason(model, inputs, fastest)


def _slo_reason(model: ModelInputs, inputs: PlannerInputs, fastest: CandidatePath) -> str:
    served, options = model.served, inputs.options
    held_us = margin_us(served.slo_us, options.slo_margin)
    hops_us = options.hop_overhead_us * (len(fastest.pools) + 1)
    moving_us = fastest.batch * sum(fastest.transfers_us)
    parts = (
        ("compute", sum(pool.latency_us for pool in fastest.pools)),
        ("transfer", moving_us),
        ("hop overhead", hops_us),
        ("batch building", fastest.batch_build_us),
        ("margin", held_us),
    )
    told = " + ".join(f"{name} {_ms(us)}" for name, us in parts if us)
    way = " → ".join(pool.gpu_class.name for pool in fastest.pools)
    short_us = fastest.latency_us + held_us - served.slo_us
    return (
        f"model {served.name}: SLO: the fastest path ({way}, batch {fastest.batch}) takes "
        f"{told} > SLO {_ms(served.slo_us)}: short by {_ms(short_us)}"
    )


def _memory_reason(model: ModelInputs, inputs: PlannerInputs) -> str:
    name = model.served.name
    batch = min(
        batch
        for table in model.latencies.values()
        for share in table.shares
        for batch in table.batches(share)
    )
    largest = max(inputs.gpu_classes, key=lambda each: each.memory_bytes)
    needs = [model.stage_memory_bytes(block, block + 1, batch) for block in range(model.blocks)]
    block = max(range(model.blocks), key=needs.__getitem__)
    room = f"{largest.name} has {_gib(largest.memory_bytes)}"
    if batch > inputs.options.max_batch:
        limit = inputs.options.max_batch
        return f"model {name}: batch: the smallest profiled is {batch}, max_batch is {limit}"
    if needs[block] > largest.memory_bytes:
        return (
            f"model {name}: memory: block {block} alone needs {_gib(needs[block])}, {room}: "
            f"short by {_gib(needs[block] - largest.memory_bytes)}"
        )
    whole = model.stage_memory_bytes(0, model.blocks, batch)
    return (
        f"model {name}: memory: its {model.blocks} blocks need {_gib(whole)} together, {room}, "
        f"and max_stages {inputs.options.max_stages} allows no cut that fits"
    )


def _together(inputs: PlannerInputs, rates: Rates, settings: SolverSettings) -> Iterator[str]:
    """Yield reasons that only all models together have: GPUs, then rates."""
    problem = Problem(
        gpu_classes=inputs.gpu_classes,
        models=tuple(replace(model.served, rate_rps=None) for model in inputs.models),
        paths=enumerate_paths(inputs, rates),
    )
    missing = fewest_extra_gpus(problem, settings)
    if missing:
        told = " and ".join(f"{count} more {name}" for name, count in missing.items())
        yield f"GPUs: not enough for one instance of every stage of each model; {told} would do"
    elif missing == {}:
        yield from _rate_reasons(inputs, problem, settings)
    else:
        yield "GPUs: not enough for each model within the time limit"


def _rate_reasons(
    inputs: PlannerInputs, problem: Problem, settings: SolverSettings
) -> Iterator[str]:
    """Yield, per model that asks for a rate, how much of it is reached when all share fairly."""
    rated = {model.served.name: model.served.rate_rps for model in inputs.models}
    asked = {name: rate for name, rate in rated.items() if rate}
    models = tuple(_as_rated(model, asked, problem) for model in problem.models)
    solution = solve(replace(problem, models=models), settings)
    reached = 0.0 if solution is None else min(_ALMOST_ALL, solution.objective_rps)
    for name, rate in asked.items():
        yield (
            f"model {name}: rate_rps: {rate:g} asked, only {rate * reached:.4g} reachable "
            f"({reached:.1%}) when every model with a rate gets the same part of it"
        )


def _as_rated(
    model: ServedModel, asked: Mapping[ModelName, float], problem: Problem
) -> ServedModel:
    """Return the model with its rate as weight; without one it needs an instance, no more."""
    if model.name in asked:
        return replace(model, weight=asked[model.name])
    slowest = min(path.instance_rps for path in problem.paths if path.model == model.name)
    return replace(model, weight=_NO_WEIGHT, rate_rps=slowest * _BARELY_USED)


def _ms(us: Micros) -> str:
    return f"{ms_from_micros(us):.2f} ms"


def _gib(size: Bytes) -> str:
    return f"{size / BYTES_PER_GIB:.2f} GiB"

"""Why there is no plan, and the smallest change that would give one.

Asked only after a solve has failed. One constraint at a time, simplest first: memory and SLO of
each model by itself; then GPUs, rates and price of all together. Each reason names the model or
class, says by how much it falls short, and what would do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from penstock.domain.cluster import ServedModel
from penstock.domain.errors import Infeasible, PlanningFailed
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import BYTES_PER_GIB, Bytes, Micros, ms_from_micros
from planner.candidates import CandidatePath, Rates
from planner.enumeration import enumerate_paths, model_paths
from planner.formulation import Problem, formulate
from planner.inputs import ModelInputs, PlannerInputs, margin_us
from planner.optimise import optimise
from planner.paths import PathTable
from planner.solve import Job, SolverSettings, run
from planner.sought import Cheapest, Limits, MaxMin, Task, task_of

_ALMOST_ALL = 0.9999  # what is not reached is never reported as 100 %
_NO_WEIGHT = 1e-9
_BARELY_USED = 0.01
_ROOMY = 1_000_000  # GPUs: as many as anyone could ask for
_MOST_PATHS = 2_000  # per model, in a program that only has to tell what is missing
_STRETCHES = (1.02, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0)  # of all SLOs, tried in this order
_NEVER_RPS = 1e-9  # a batch of two never fills
_ANY_PLAN = 0.5  # relative gap: the first plan at hand will do


def infeasible(inputs: PlannerInputs, rates: Rates, settings: SolverSettings) -> Infeasible:
    """Return the error that tells why no plan serves every model at these rates."""
    # Where nothing is known of the rate, what is told must hold for batches of one sample.
    rates = {name: _NEVER_RPS if math.isinf(rate) else rate for name, rate in rates.items()}
    alone = [reason for model in inputs.models for reason in _alone(model, inputs, rates)]
    reasons = alone or list(_together(inputs, rates, settings))
    return Infeasible(reasons or ["no constraint alone is in the way, all together leave no plan"])


def _alone(model: ModelInputs, inputs: PlannerInputs, rates: Rates) -> Iterator[str]:
    """Yield the reason why one model has no path even on an empty fleet."""
    rate = rates[model.served.name]
    if len(model_paths(model, inputs, rate)):
        return
    anyhow = model_paths(model, inputs, rate, limited=False)
    if len(anyhow):
        (fastest,) = anyhow.candidates(anyhow.latency_us.argsort(kind="stable")[:1])
        yield _slo_reason(model, inputs, fastest)
    else:
        yield _memory_reason(model, inputs)


def _slo_reason(model: ModelInputs, inputs: PlannerInputs, fastest: CandidatePath) -> str:
    served, options = model.served, inputs.options
    hops_us = options.hop_overhead_us * (len(fastest.pools) + 1)
    computing_us = sum(
        _group(fastest, at) * pool.latency_us // pool.batch for at, pool in enumerate(fastest.pools)
    )
    moving_us = fastest.latency_us - hops_us - computing_us - fastest.batch_build_us
    parts = (
        ("compute", computing_us),
        ("transfer", moving_us),
        ("hop overhead", hops_us),
        ("batch building", fastest.batch_build_us),
        ("margin", model.margin_us),
    )
    told = " + ".join(f"{name} {_ms(us)}" for name, us in parts if us)
    way = " → ".join(pool.gpu_class.name for pool in fastest.pools)
    which = f"model {served.name}: SLO: the fastest path ({way}, batch {fastest.batch}) takes"
    short_us = fastest.latency_us + model.margin_us - served.slo_us
    if short_us <= 0:
        cap = f"max_latency_ms {ms_from_micros(served.max_latency_us or 0):g}"
        return (
            f"{which} {_ms(fastest.latency_us)}, more than {cap}; "
            f"raise it to {_up_to_ms(fastest.latency_us)}"
        )
    wanted = _up_to_ms(_least_slo_us(model, options.slo_margin, fastest.latency_us))
    return (
        f"{which} {told} > SLO {_ms(served.slo_us)}: short by {_ms(short_us)}; "
        f"slo_ms {wanted} would do"
    )


def _least_slo_us(model: ModelInputs, slo_margin: float, latency_us: Micros) -> Micros:
    """Return the SLO that leaves that latency beside the margin, which may grow with it."""
    if model.served.margin_us is not None:
        return latency_us + model.margin_us
    slo_us = math.ceil(latency_us / (1 - slo_margin))
    return next(each for each in count(slo_us) if each - margin_us(each, slo_margin) >= latency_us)


def _group(path: CandidatePath, position: int) -> int:
    """Return how many samples travel together at a stage."""
    return max(pool.batch for pool in path.pools[: position + 1])


def _memory_reason(model: ModelInputs, inputs: PlannerInputs) -> str:
    name, classes = (
        model.served.name,
        [each for each in inputs.gpu_classes if model.may_use(each.name)],
    )
    if not classes:
        return f"model {name}: gpu_classes: none is left that it may run on; allow one"
    batch = min(
        batch
        for table in model.latencies.values()
        for share in table.shares
        for batch in table.batches(share)
    )
    largest = max(classes, key=lambda each: each.memory_bytes)
    needs = [model.stage_memory_bytes(block, block + 1, batch) for block in range(model.blocks)]
    block = max(range(model.blocks), key=needs.__getitem__)
    room = f"{largest.name} has {_gib(largest.memory_bytes)}"
    if batch > inputs.options.max_batch:
        limit = inputs.options.max_batch
        return (
            f"model {name}: batch: the smallest profiled is {batch}, max_batch is {limit}; "
            f"max_batch {batch} would do"
        )
    if needs[block] > largest.memory_bytes:
        return (
            f"model {name}: memory: block {block} alone needs {_gib(needs[block])}, {room}: "
            f"short by {_gib(needs[block] - largest.memory_bytes)}"
        )
    whole = model.stage_memory_bytes(0, model.blocks, batch)
    stages = _least_stages(model, largest.memory_bytes, batch)
    return (
        f"model {name}: memory: its {model.blocks} blocks need {_gib(whole)} together, {room}, "
        f"and max_stages {model.max_stages} allows no cut that fits; max_stages {stages} would do"
    )


def _least_stages(model: ModelInputs, room: Bytes, batch: int) -> int:
    """Return the fewest stages that fit, each as long as the memory allows."""
    stages = first = 0
    while first < model.blocks:
        end = first + 1
        while end < model.blocks and model.stage_memory_bytes(first, end + 1, batch) <= room:
            end += 1
        stages, first = stages + 1, end
    return stages


def _together(inputs: PlannerInputs, rates: Rates, settings: SolverSettings) -> Iterator[str]:
    """Yield reasons that only all models together have: GPUs, rates, price, then SLOs."""
    task, tables = task_of(inputs), enumerate_paths(inputs, rates)
    if task.limits.max_price is not None and _possible(_without_price(task), tables, settings):
        yield from _price_reasons(inputs, task, tables, settings)
        return
    missing = _fewest_extra_gpus(_without_price(task), tables, settings)
    if missing is None:
        yield "GPUs: not enough for each model within the time limit"
    elif missing:
        told = " and ".join(f"{number} more {name}" for name, number in missing.items())
        rated = any(model.rate_rps for model in task.models)
        goal = "every rate asked for" if rated else "one instance of every stage of each model"
        yield f"GPUs: not enough for {goal}; {told} would do"
    yield from _rate_reasons(task, tables, settings)
    yield from _stretch_reasons(inputs, rates, settings)


def _without_price(task: Task) -> Task:
    return replace(task, limits=replace(task.limits, max_price=None))


def _possible(task: Task, tables: Sequence[PathTable], settings: SolverSettings) -> bool:
    return _any_plan(task, tables, settings) is not None


def _any_plan(task: Task, tables: Sequence[PathTable], settings: SolverSettings) -> float | None:
    """Return the least weighted throughput of any plan at all; None if there is none."""
    try:
        found = optimise(task, tables, replace(settings, relative_gap=_ANY_PLAN))
    except PlanningFailed:
        return None
    return None if found is None else found.objective_rps


def _price_reasons(
    inputs: PlannerInputs, task: Task, tables: Sequence[PathTable], settings: SolverSettings
) -> Iterator[str]:
    """Yield what the cheapest plan costs that does what is asked."""
    floor = tuple(_as_served(model, tables) for model in task.models)
    cheapest = replace(_without_price(task), models=floor, sought=Cheapest(dict(task.limits.price)))
    found = optimise(cheapest, tables, settings)
    asked = inputs.options.max_price_per_hour
    if found is not None:
        yield (
            f"price: max_price_per_hour is {asked:g}, the cheapest plan costs {found.value:.4g}; "
            f"max_price_per_hour {math.ceil(found.value * 1e4) / 1e4:g} would do"
        )


def _as_served(model: ServedModel, tables: Sequence[PathTable]) -> ServedModel:
    """Return the model with a rate: its own, or barely any."""
    if model.rate_rps:
        return model
    table = next(each for each in tables if each.model.served.name == model.name)
    return replace(model, rate_rps=_BARELY_USED / float(table.loads.max()))


def _fewest_extra_gpus(
    task: Task, tables: Sequence[PathTable], settings: SolverSettings
) -> Mapping[GpuClassName, int] | None:
    """Return how many more GPUs of which class would do; None if the time was up."""
    paths = tuple(path for table in tables for path in _leanest(table))
    roomy = Limits(count=dict.fromkeys(task.limits.count, _ROOMY))
    counted = Cheapest(dict.fromkeys(task.limits.count, 0.0))
    free = replace(task, limits=roomy, sought=counted)
    formulation = formulate(Problem(task=free, paths=paths))
    program = formulation.program
    extra = {}
    for name, held in task.limits.count.items():
        extra[name] = program.add_variable(lb=0.0, is_integer=True)
        row = program.add_linear_constraint(ub=float(held))
        row.set_coefficient(formulation.gpus[name], 1.0)
        row.set_coefficient(extra[name], -1.0)
        program.objective.set_linear_coefficient(extra[name], 1.0)
    for model in task.models:
        # At least what one path carries with one instance in each of its pools.
        row = program.add_linear_constraint(lb=1.0)
        for path, variable in formulation.flow.items():
            if path.model == model.name:
                row.set_coefficient(variable, 1 / path.instance_rps)
    answer = run(Job(program=program), settings)
    if not answer.values:
        return None
    missing = {name: round(answer.values[variable]) for name, variable in extra.items()}
    return {name: number for name, number in missing.items() if number > 0}


def _leanest(table: PathTable) -> list[CandidatePath]:
    """Return the paths that use fewest GPUs for a sample/s."""
    order = table.use.sum(axis=1).argsort(kind="stable")
    return table.candidates(order[:_MOST_PATHS])


def _rate_reasons(
    task: Task, tables: Sequence[PathTable], settings: SolverSettings
) -> Iterator[str]:
    """Yield, per model that asks for a rate, how much of it is reached when all share fairly."""
    asked = {model.name: model.rate_rps for model in task.models if model.rate_rps}
    if not asked:
        return
    models = tuple(_as_rated(model, asked, tables) for model in task.models)
    found = optimise(replace(task, models=models, sought=MaxMin()), tables, settings)
    reached = 0.0 if found is None else min(_ALMOST_ALL, found.objective_rps)
    for name, rate in asked.items():
        yield (
            f"model {name}: rate_rps: {rate:g} asked, only {rate * reached:.4g} reachable "
            f"({reached:.1%}) when every model with a rate gets the same part of it"
        )


def _as_rated(
    model: ServedModel, asked: Mapping[ModelName, float], tables: Sequence[PathTable]
) -> ServedModel:
    """Return the model with its rate as weight; without one it needs an instance, no more."""
    if model.name in asked:
        return replace(model, weight=asked[model.name], rate_rps=None)
    return replace(_as_served(model, tables), weight=_NO_WEIGHT)


def _stretch_reasons(
    inputs: PlannerInputs, rates: Rates, settings: SolverSettings
) -> Iterator[str]:
    """Yield by how much all SLOs together would have to be longer, if that helps."""
    for stretch in _STRETCHES:
        if settings.left_s <= 0:
            return
        longer = replace(inputs, models=tuple(_stretched(each, stretch) for each in inputs.models))
        if _possible(task_of(longer), enumerate_paths(longer, rates), settings):
            yield f"SLO: or raise every slo_ms by {stretch - 1:.0%}"
            return


def _stretched(model: ModelInputs, stretch: float) -> ModelInputs:
    served = model.served
    longer_us = math.ceil(served.slo_us * stretch)
    held_us = math.ceil(model.margin_us * stretch)
    return replace(model, served=replace(served, slo_us=longer_us), margin_us=held_us)


def _ms(us: Micros) -> str:
    return f"{ms_from_micros(us):.2f} ms"


def _up_to_ms(us: Micros) -> str:
    """Return whole microseconds as milliseconds, never rounded down."""
    return f"{ms_from_micros(us):.3f}".rstrip("0").rstrip(".")


def _gib(size: Bytes) -> str:
    return f"{size / BYTES_PER_GIB:.2f} GiB"

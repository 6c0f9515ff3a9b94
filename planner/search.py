"""From inputs to a solution: how fast batches fill, which paths there are, which are used.

The allowance for gathering a batch needs the rate at which requests come. Where rates are asked
for and nothing more (least cost, fewest GPUs), they are that rate. Else it is what is being
planned: PPipe takes the no-partition throughput, planned without that allowance; so do we, and
where no-partition cannot serve the models at all we take the partitioned throughput, planned
without it. Either may be more than the plan then sustains; if so, the search is repeated with
what it does sustain, until batches fill at least as fast as was assumed.
"""

from __future__ import annotations

import math
from dataclasses import replace

from penstock.domain.errors import PlanningFailed
from planner.baselines import no_partition
from planner.candidates import Rates
from planner.enumeration import enumerate_paths
from planner.infeasible import infeasible
from planner.inputs import PlannerInputs
from planner.optimise import optimise
from planner.replan import Running
from planner.solution import Solution, totals
from planner.solve import SolverSettings
from planner.sought import MaxMin, task_of

_EQUAL = 1e-9  # relative: closer than this, two throughputs are the same
_MOST_ROUNDS = 20
_RATE_NODES = 200
_ROUGHLY = 0.02  # relative: so little hardly matters for how fast batches fill
_HARDLY_RPS = 1e-9  # batches that fill at this rate are never worth gathering


def find_solution(
    inputs: PlannerInputs, settings: SolverSettings, running: Running | None = None
) -> Solution:
    """Return the best solution for the objective in the options.

    Args:
        inputs: cluster, models and options.
        settings: solver, deadline, gap, seed.
        running: stages that run already, to be kept where that costs nothing.

    Raises:
        Infeasible: no plan serves every model.
        PlanningFailed: the time was up before any plan was found.
    """
    rough = replace(settings, relative_gap=max(_ROUGHLY, settings.relative_gap))
    rates = estimate_rates(inputs, rough if running else settings)  # there is little time then
    for _ in range(_MOST_ROUNDS):
        solution = best_solution(inputs, rates, settings, running)
        sustained = totals(solution.flows)
        if all(sustained[name] >= rate * (1 - _EQUAL) for name, rate in rates.items()):
            return solution
        rates = {name: min(rate, sustained[name]) for name, rate in rates.items()}
        slowed = _slowed(inputs, solution, rates)
        if slowed is not None:
            return slowed
    return best_solution(inputs, dict.fromkeys(rates, _HARDLY_RPS), settings, running)


def estimate_rates(inputs: PlannerInputs, settings: SolverSettings) -> Rates:
    """Return the samples/s at which each model's batches are assumed to fill.

    Those asked for where no more is sought; else the throughput of the no-partition plan, or
    failing that of the partitioned one, both without any allowance for gathering batches.

    Raises:
        Infeasible: no plan serves every model even so.
    """
    served = [model.served for model in inputs.models]
    if inputs.options.objective in ("least-cost", "fewest-gpus"):
        task_of(inputs)  # says so if a rate is missing
        return {model.name: model.rate_rps or 0.0 for model in served}
    at_once = dict.fromkeys((model.name for model in served), math.inf)
    weighted_rps = _unhindered_rps(inputs, at_once, settings)
    return {model.name: max(model.weight * weighted_rps, model.rate_rps or 0.0) for model in served}


def _unhindered_rps(inputs: PlannerInputs, at_once: Rates, settings: SolverSettings) -> float:
    """Return the least weighted throughput where batches fill at once, whatever rates are asked."""
    for each in (no_partition(inputs), inputs):
        task = task_of(each)
        free = replace(
            task,
            sought=MaxMin(),
            models=tuple(replace(model, rate_rps=None) for model in task.models),
        )
        tables = enumerate_paths(each, at_once)
        # A rate at which batches fill need not be exact, and must not use up the time for the plan.
        try:
            solution = optimise(free, tables, replace(settings, node_limit=_RATE_NODES))
        except PlanningFailed:
            solution = optimise(free, tables, settings)
        if solution is not None:
            return solution.objective_rps
    raise infeasible(inputs, at_once, settings)


def best_solution(
    inputs: PlannerInputs,
    rates: Rates,
    settings: SolverSettings,
    running: Running | None = None,
) -> Solution:
    """Return the best solution when batches fill at `rates`.

    Raises:
        Infeasible: no plan serves every model, or reaches the rates asked for.
        PlanningFailed: the time was up before any plan was found.
    """
    solution = optimise(task_of(inputs), enumerate_paths(inputs, rates), settings, running)
    if solution is None:
        raise infeasible(inputs, rates, settings)
    return solution


def _slowed(inputs: PlannerInputs, solution: Solution, rates: Rates) -> Solution | None:
    """Return the solution with batches that fill at lower rates; None if an SLO breaks."""
    factor = inputs.options.batch_build_factor
    budgets = {model.served.name: model.budget_us for model in inputs.models}
    flows = {
        path.filling_at(rates[path.model], factor): flow for path, flow in solution.flows.items()
    }
    if any(path.latency_us > budgets[path.model] for path in flows):
        return None
    return replace(solution, flows=flows)

"""From inputs to a solution: how fast batches fill, which paths there are, which are used.

The allowance for gathering a batch needs the rate at which requests come, which is what is being
planned. PPipe takes the no-partition throughput, planned without that allowance; so do we, and
where no-partition cannot serve the models at all we take the partitioned throughput, planned
without it. Either may be more than the plan then sustains; if so, the search is repeated with
what it does sustain, until batches fill at least as fast as was assumed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from penstock.domain.cluster import ServedModel
from penstock.domain.units import Micros
from planner.baselines import no_partition
from planner.candidates import CandidatePath, CandidatePool, Rates, batch_build_us, enumerate_paths
from planner.formulation import Group, Problem, group_of
from planner.infeasible import infeasible
from planner.inputs import PlannerInputs, margin_us
from planner.solve import Solution, SolverSettings, solve

_EQUAL = 1e-9  # relative: closer than this, two throughputs are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Samples/s at which batches are assumed to fill: every model in proportion to its weight.

    Attributes:
        weighted_rps: the same for every model, times its weight; at least its own `rate_rps`.
    """

    models: tuple[ServedModel, ...]
    weighted_rps: float

    def rates(self) -> Rates:
        """Return the rate of each model."""
        return {
            model.name: max(model.weight * self.weighted_rps, model.rate_rps or 0.0)
            for model in self.models
        }


def find_solution(inputs: PlannerInputs, settings: SolverSettings) -> Solution:
    """Return the solution of greatest least weighted throughput.

    Raises:
        Infeasible: no plan serves every model.
        PlanningFailed: the time was up before any plan was found.
    """
    demand = estimate_demand(inputs, settings)
    while True:
        solution = best_solution(inputs, demand.rates(), settings)
        if solution.objective_rps >= demand.weighted_rps * (1 - _EQUAL):
            return solution
        demand = replace(demand, weighted_rps=solution.objective_rps)
        slowed = _slowed(inputs, solution, demand.rates())
        if slowed is not None:
            return slowed


def estimate_demand(inputs: PlannerInputs, settings: SolverSettings) -> Demand:
    """Return the demand of the no-partition plan, else that of the partitioned one.

    Both without any allowance for gathering batches, and whatever rates were asked for.
    """
    served = tuple(model.served for model in inputs.models)
    at_once = dict.fromkeys((model.name for model in served), math.inf)
    for each in (no_partition(inputs), inputs):
        problem = _problem(each, enumerate_paths(each, at_once), rated=False)
        solution = _solve_packed(problem, settings)
        if solution is not None and solution.objective_rps > 0:
            return Demand(models=served, weighted_rps=solution.objective_rps)
    raise infeasible(inputs, at_once, settings)


def best_solution(inputs: PlannerInputs, rates: Rates, settings: SolverSettings) -> Solution:
    """Return the best solution when batches fill at `rates`.

    Raises:
        Infeasible: no plan serves every model, or reaches the rates asked for.
        PlanningFailed: the time was up before any plan was found.
    """
    problem = _problem(inputs, enumerate_paths(inputs, rates))
    solution = _solve_packed(problem, settings)
    if solution is None or solution.objective_rps <= 0:
        raise infeasible(inputs, rates, settings)
    return solution


def _problem(
    inputs: PlannerInputs, paths: Sequence[CandidatePath], *, rated: bool = True
) -> Problem:
    served = [model.served for model in inputs.models]
    return Problem(
        gpu_classes=inputs.gpu_classes,
        models=tuple(model if rated else replace(model, rate_rps=None) for model in served),
        paths=tuple(paths),
    )


def _slowed(inputs: PlannerInputs, solution: Solution, rates: Rates) -> Solution | None:
    """Return the solution with batches that fill at lower rates; None if an SLO breaks."""
    factor = inputs.options.batch_build_factor
    flows: dict[CandidatePath, float] = {}
    budgets = {model.served.name: _budget_us(model.served, inputs) for model in inputs.models}
    for path, flow in solution.flows.items():
        build_us = batch_build_us(path.batch, rates[path.model], factor)
        latency_us = path.latency_us - path.batch_build_us + build_us
        if latency_us > budgets[path.model]:
            return None
        flows[replace(path, batch_build_us=build_us, latency_us=latency_us)] = flow
    return replace(solution, flows=flows)


def _budget_us(served: ServedModel, inputs: PlannerInputs) -> Micros:
    return served.slo_us - margin_us(served.slo_us, inputs.options.slo_margin)


def _solve_packed(problem: Problem, settings: SolverSettings) -> Solution | None:
    """Solve until the shares can really be laid out on the GPUs they were counted on."""
    while True:
        solution = solve(problem, settings)
        loose = frozenset() if solution is None else unpackable(solution.instances)
        if loose <= problem.split_shares:
            return solution
        problem = replace(problem, split_shares=problem.split_shares | loose)


def unpackable(instances: Mapping[CandidatePool, int]) -> frozenset[Group]:
    """Return the groups whose shares need more GPUs than their sum, rounded up.

    Shares that divide each other always fit; 1/2, 1/3, 1/3, 1/4, 1/4, 1/4 do not by first fit.
    """
    shares: defaultdict[Group, list[Fraction]] = defaultdict(list)
    for pool, count in instances.items():
        shares[group_of(pool)].extend([pool.share] * count)
    return frozenset(
        group for group, each in shares.items() if _first_fit(each) > math.ceil(sum(each))
    )


def _first_fit(shares: Sequence[Fraction]) -> int:
    """Return the GPUs that first fit by decreasing share takes, as placement does."""
    free: list[Fraction] = []
    for share in sorted(shares, reverse=True):
        fitting = next((index for index, room in enumerate(free) if room >= share), None)
        if fitting is None:
            free.append(1 - share)
        else:
            free[fitting] -= share
    return len(free)

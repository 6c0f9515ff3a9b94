"""Solving a problem: the mixed-integer program, then a tidy-up that wastes nothing.

Three solves: (1) the most throughput; (2) among the pools in use, the fewest GPUs, then the fewest
instances, that still reach it; (3) with those instances fixed, the most flow each model can have.
The second and third are tiny. Knows OR-Tools, nothing of plans or profiles. HiGHS must not be
given a thread count through MathOpt (it fails), so no solver is.
"""

from __future__ import annotations

import datetime
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ortools.math_opt.python import mathopt

from penstock.domain.errors import PlanningFailed
from penstock.domain.ids import GpuClassName, ModelName
from planner.candidates import CandidatePath, CandidatePool
from planner.formulation import Formulation, Problem, add_capacity, formulate
from planner.quiet import native_output_on_stderr

SolverName: TypeAlias = Literal["gscip", "highs"]

_LEAST_TIME_S = 1.0  # a solve gets this much even when the limit has passed: an incumbent is owed
_TIDY_TIME_S = 5.0  # the tidy-up is a courtesy and must not use up the time limit
_ZERO = 1e-9  # relative: flows below are noise of the solver
_SLACK = 1e-9  # relative: what the tidy-up may give away of the objective


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """How to solve, and until when.

    Attributes:
        deadline: instant of `time.perf_counter`.
        relative_gap: stop this close to the bound.
    """

    solver: SolverName
    deadline: float
    relative_gap: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Instances and flows.

    Attributes:
        instances: pools with at least one.
        flows: samples/s of the paths in use.
        objective_rps: least flow divided by weight over the models.
        bound_rps: proven upper bound of it.
        status: ``optimal`` (to the gap asked for) or ``feasible`` (the time was up).
    """

    instances: Mapping[CandidatePool, int]
    flows: Mapping[CandidatePath, float]
    objective_rps: float
    bound_rps: float
    status: str


def solve(problem: Problem, settings: SolverSettings) -> Solution | None:
    """Return the best plan of the problem found in time; None if there is provably none.

    Raises:
        PlanningFailed: the time was up before a plan that serves every model was found.
    """
    formulation = formulate(problem)
    result = _run(formulation.program, settings)
    reason = result.termination.reason
    if reason in (mathopt.TerminationReason.INFEASIBLE, _INFEASIBLE_OR_UNBOUNDED):
        return None
    if not result.has_primal_feasible_solution():
        raise PlanningFailed(f"no plan was found in time ({result.termination.detail})")
    rough = _rounded(formulation, result)
    instances = _trimmed(problem, rough, result.objective_value(), settings)
    flows = _most_flow(problem, instances)
    objective = least_weighted(problem, flows)
    optimal = reason == mathopt.TerminationReason.OPTIMAL
    if objective <= 0 and not optimal:
        raise PlanningFailed("no plan that serves every model was found in time")
    return Solution(
        instances=instances,
        flows=flows,
        objective_rps=objective,
        bound_rps=max(objective, result.termination.objective_bounds.dual_bound),
        status="optimal" if optimal else "feasible",
    )


def least_weighted(problem: Problem, flows: Mapping[CandidatePath, float]) -> float:
    """Return the least flow divided by weight over the models."""
    total: defaultdict[ModelName, float] = defaultdict(float)
    for path, flow in flows.items():
        total[path.model] += flow
    return min(total[model.name] / model.weight for model in problem.models)


_INFEASIBLE_OR_UNBOUNDED = mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED


def _run(program: mathopt.Model, settings: SolverSettings) -> mathopt.SolveResult:
    left_s = max(_LEAST_TIME_S, settings.deadline - time.perf_counter())
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=left_s),
        relative_gap_tolerance=settings.relative_gap,
        random_seed=settings.seed,
    )
    kind = {"gscip": mathopt.SolverType.GSCIP, "highs": mathopt.SolverType.HIGHS}
    with native_output_on_stderr():
        return mathopt.solve(program, kind[settings.solver], params=parameters)


def _rounded(formulation: Formulation, result: mathopt.SolveResult) -> dict[CandidatePool, int]:
    values = result.variable_values()
    counts = {pool: round(values[variable]) for pool, variable in formulation.n.items()}
    return {pool: count for pool, count in counts.items() if count > 0}


def _trimmed(
    problem: Problem, used: Mapping[CandidatePool, int], z: float, settings: SolverSettings
) -> Mapping[CandidatePool, int]:
    """Return the fewest GPUs, then instances, of the pools in use that still reach `z`."""
    if z <= 0:
        return {}
    formulation = formulate(_only(problem, used))
    program = formulation.program
    program.add_linear_constraint(formulation.z >= z * (1 - _SLACK))
    for pool, count in used.items():
        if pool in formulation.n:  # a pool that no complete path uses is left out
            formulation.n[pool].upper_bound = count
    instances = mathopt.fast_sum(formulation.n.values())
    program.minimize((1 + sum(used.values())) * mathopt.fast_sum(formulation.gpus) + instances)
    soon = min(settings.deadline, time.perf_counter() + _TIDY_TIME_S)
    result = _run(program, replace(settings, relative_gap=0.0, deadline=soon))
    found = result.has_primal_feasible_solution()
    return _rounded(formulation, result) if found else used


def _only(problem: Problem, used: Mapping[CandidatePool, int]) -> Problem:
    """Return the problem with those paths only whose pools all have instances."""
    paths = tuple(path for path in problem.paths if all(pool in used for pool in path.pools))
    return replace(problem, paths=paths)


def _most_flow(
    problem: Problem, instances: Mapping[CandidatePool, int]
) -> dict[CandidatePath, float]:
    """Return the most flow through fixed instances: least weighted first, then each model's."""
    program = mathopt.Model(name="flows")
    flow = {path: program.add_variable(lb=0.0) for path in _only(problem, instances).paths}
    add_capacity(program, flow, instances)
    # Models share no instances, so the sum is at its most when each model's flow is.
    program.maximize(mathopt.fast_sum(flow.values()))
    result = mathopt.solve(program, mathopt.SolverType.GLOP)
    values = result.variable_values()
    return _within_capacity({path: values[flow[path]] for path in flow}, instances)


def _within_capacity(
    flows: Mapping[CandidatePath, float], instances: Mapping[CandidatePool, int]
) -> dict[CandidatePath, float]:
    """Drop noise and take back the solver's tolerance, so that no pool is over its capacity."""
    floor = _ZERO * max(flows.values(), default=0.0)
    kept = {path: flow for path, flow in flows.items() if flow > floor}
    busy: defaultdict[tuple[CandidatePool, int], float] = defaultdict(float)
    for path, flow in kept.items():
        for position, pool in enumerate(path.pools):
            for kind, load in enumerate(path.loads(position)):
                busy[pool, kind] += load * flow
    over = max((load / instances[pool] for (pool, _), load in busy.items()), default=0.0)
    return {path: flow / max(1.0, over) for path, flow in kept.items()}


def fewest_extra_gpus(
    problem: Problem, settings: SolverSettings
) -> Mapping[GpuClassName, int] | None:
    """Return how many more GPUs of which class would give every model one whole path.

    Explains an infeasible problem. None if the time was up; empty if none are missing.
    """
    formulation = formulate(problem)
    program = formulation.program
    for model in problem.models:
        # At least what one path carries with one instance in each of its pools.
        paths = mathopt.fast_sum(
            variable / path.instance_rps
            for path, variable in formulation.flow.items()
            if path.model == model.name
        )
        program.add_linear_constraint(paths >= 1)
    for variable in formulation.extra.values():
        variable.upper_bound = math.inf
    program.minimize(mathopt.fast_sum(formulation.extra.values()))
    result = _run(program, settings)
    if not result.has_primal_feasible_solution():
        return None
    values = result.variable_values()
    missing = {name: round(values[each]) for name, each in formulation.extra.items()}
    return {name: count for name, count in missing.items() if count > 0}

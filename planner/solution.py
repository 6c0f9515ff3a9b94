"""Solutions: instances and flows, made tidy after a solver is done with them.

A solver's answer may hold instances that nothing needs and flows that leave capacity unused. The
tidy-up takes (1) among the pools in use the fewest GPUs, then the fewest instances, that still
reach the value, (2) with those fixed, the most flow each model can have. Both are tiny programs.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from ortools.math_opt.python import mathopt

from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.packing import fewest_gpus
from penstock.domain.plan import SolvePhase
from planner.candidates import CandidatePath, CandidatePool
from planner.formulation import (
    Formulation,
    Group,
    Problem,
    Variable,
    add_capacity,
    formulate,
    group_of,
)
from planner.solve import Job, SolverSettings, run
from planner.sought import Cheapest, Goodput, MaxMin, Task, least_weighted

Status: TypeAlias = Literal["optimal", "feasible"]
Instances: TypeAlias = Mapping[CandidatePool, int]

_TIDY_TIME_S = 5.0  # the tidy-up is a courtesy and must not use up the time limit
_ZERO = 1e-9  # relative: flows below are noise of the solver
_SLACK = 1e-9  # relative: what the tidy-up may give away of the value


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Instances and flows.

    Attributes:
        instances: pools with at least one.
        flows: samples/s of the paths in use.
        objective_rps: least flow divided by weight over the models.
        value: of the objective sought.
        bound: proven: no plan has a better value.
        status: ``optimal`` (to the gap asked for) or ``feasible`` (stopped before).
        phases: what the time went into.
    """

    instances: Instances
    flows: Mapping[CandidatePath, float]
    objective_rps: float
    value: float
    bound: float
    status: Status
    phases: tuple[SolvePhase, ...] = ()

    @property
    def gap(self) -> float:
        """Distance of value and bound, divided by the greater of the two."""
        greater = max(abs(self.value), abs(self.bound))
        return abs(self.bound - self.value) / greater if greater else 0.0


def counts(formulation: Formulation, values: Mapping[Variable, float]) -> dict[CandidatePool, int]:
    """Return the pools that got instances."""
    found = {pool: round(values[variable]) for pool, variable in formulation.n.items()}
    return {pool: count for pool, count in found.items() if count > 0}


def finish(problem: Problem, rough: Instances, value: float, settings: SolverSettings) -> Solution:
    """Return the tidy solution of rough instances that reach `value`; its bound is its value."""
    return with_flows(problem, _trimmed(problem, rough, value, settings))


def with_flows(problem: Problem, instances: Instances) -> Solution:
    """Return the solution that sends the most flow through fixed instances."""
    flows = _most_flow(problem, instances)
    used = {pool: count for pool, count in instances.items() if _is_used(pool, flows)}
    reached = value_of(problem.task, used, flows)
    return Solution(
        instances=used,
        flows=flows,
        objective_rps=least_weighted(problem.task.models, totals(flows)),
        value=reached,
        bound=reached,
        status="feasible",
    )


def totals(flows: Mapping[CandidatePath, float]) -> dict[ModelName, float]:
    """Return each model's throughput."""
    total: defaultdict[ModelName, float] = defaultdict(float)
    for path, flow in flows.items():
        total[path.model] += flow
    return total


def value_of(task: Task, instances: Instances, flows: Mapping[CandidatePath, float]) -> float:
    """Return the value of the objective."""
    match task.sought:
        case MaxMin():
            return least_weighted(task.models, totals(flows))
        case Goodput():
            return sum(flows.values())
        case Cheapest(price=price):
            return sum(price[name] * n for name, n in gpus_used(task, instances).items())


def gpus_used(task: Task, instances: Instances) -> dict[GpuClassName, int]:
    """Return the GPUs of each class that the instances take, laid out as well as can be.

    In compat mode the sum of shares counts, as published, whether it can be laid out or not.
    """
    count = _ceil_sum if task.exclusive else fewest_gpus
    used: Counter[GpuClassName] = Counter()
    for group, held in _by_group(task, instances).items():
        used[group[0]] += count(held)
    return {each.name: used[each.name] for each in task.gpu_classes}


def loose_groups(task: Task, instances: Instances) -> frozenset[Group]:
    """Return the groups whose shares need more GPUs than their sum, rounded up."""
    if task.exclusive:
        return frozenset()
    return frozenset(
        group
        for group, held in _by_group(task, instances).items()
        if fewest_gpus(held) > _ceil_sum(held)
    )


def _by_group(task: Task, instances: Instances) -> dict[Group, Counter[int]]:
    groups: defaultdict[Group, Counter[int]] = defaultdict(Counter)
    for pool, count in instances.items():
        groups[group_of(pool, task)][pool.m] += count
    return groups


def _ceil_sum(held: Mapping[int, int]) -> int:
    return math.ceil(sum((Fraction(count, m) for m, count in held.items()), Fraction(0)))


def _is_used(pool: CandidatePool, flows: Iterable[CandidatePath]) -> bool:
    return any(pool in path.pools for path in flows)


def _trimmed(
    problem: Problem, used: Instances, value: float, settings: SolverSettings
) -> Instances:
    """Return the fewest GPUs, then instances, of the pools in use that still reach the value."""
    formulation = formulate(only(problem, used))
    hold_value(formulation, problem.task, value)
    for pool, count in used.items():
        if pool in formulation.n:  # a pool that no complete path uses is left out
            formulation.n[pool].upper_bound = float(count)
    objective = formulation.program.objective
    objective.clear()
    objective.is_maximize = False
    for variable in formulation.gpus.values():
        objective.set_linear_coefficient(variable, 1.0 + sum(used.values()))
    for variable in formulation.n.values():
        objective.set_linear_coefficient(variable, 1.0)
    soon = min(settings.deadline, time.perf_counter() + _TIDY_TIME_S)
    answer = run(
        Job(program=formulation.program), replace(settings, relative_gap=0.0, deadline=soon)
    )
    return counts(formulation, answer.values) if answer.values else used


def hold_value(formulation: Formulation, task: Task, value: float) -> None:
    """Keep a program to solutions that reach a value."""
    slack = _SLACK * abs(value)
    match task.sought:
        case MaxMin():
            if formulation.z is not None:
                formulation.z.lower_bound = max(0.0, value - slack)
        case Goodput():
            row = formulation.program.add_linear_constraint(lb=value - slack)
            for variable in formulation.flow.values():
                row.set_coefficient(variable, 1.0)
        case Cheapest(price=price):
            row = formulation.program.add_linear_constraint(ub=value + slack)
            for name, variable in formulation.gpus.items():
                row.set_coefficient(variable, price[name])


def only(problem: Problem, used: Iterable[CandidatePool]) -> Problem:
    """Return the problem with those paths only whose pools all have instances."""
    known = set(used)
    paths = tuple(path for path in problem.paths if known.issuperset(path.pools))
    return replace(problem, paths=paths)


def _most_flow(problem: Problem, instances: Instances) -> dict[CandidatePath, float]:
    """Return the most flow through fixed instances."""
    program = mathopt.Model(name="flows")
    flow = {path: program.add_variable(lb=0.0) for path in only(problem, instances).paths}
    add_capacity(program, flow, instances)
    # Models share no instances, so the sum is at its most when each model's flow is.
    program.maximize(mathopt.fast_sum(flow.values()))
    result = mathopt.solve(program, mathopt.SolverType.GLOP)
    values = result.variable_values()
    return _within_capacity({path: values[flow[path]] for path in flow}, instances)


def _within_capacity(
    flows: Mapping[CandidatePath, float], instances: Instances
) -> dict[CandidatePath, float]:
    """Drop noise and take back the solver's tolerance, so that no pool is over its capacity."""
    floor = _ZERO * max(flows.values(), default=0.0)
    kept = {path: flow for path, flow in flows.items() if flow > floor}
    busy: defaultdict[CandidatePool, float] = defaultdict(float)
    for path, flow in kept.items():
        for position, pool in enumerate(path.pools):
            busy[pool] += path.load(position) * flow
    over = max((load / instances[pool] for pool, load in busy.items()), default=0.0)
    return {path: flow / max(1.0, over) for path, flow in kept.items()}

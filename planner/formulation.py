"""The path formulation as a mixed-integer program.

    Σ load(path, pool) · flow[path] ≤ n[pool]              for every pool
    Σ flow[path of model] ≥ weight · z, ≥ rate_rps         for every model
    gpus[class] ≥ GPUs that hold the class's instances,  gpus[class] ≤ count[class]
    Σ price · gpus ≤ max_price

n and gpus are integers, flows (samples/s) are not. `load` is 1/x, the inverse of PPipe's instance
throughput. GPUs are counted as the sum of shares: of a whole class, or rounded up per model and
stage position. Where such a sum cannot be laid out (1/2 and 1/3 leave a hole), `laid_out` names the
group and its GPUs are counted by the patterns that fill one. In compat mode a pool belongs to one
ordered tuple of classes, and of each tuple's pools only one per position may open.

This module, `planner.relaxation` and `planner.solve` are the only ones that know OR-Tools.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ortools.math_opt.python import mathopt

from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.packing import maximal_patterns
from planner.candidates import CandidatePath, CandidatePool
from planner.sought import Cheapest, Goodput, MaxMin, Task

Group: TypeAlias = tuple[GpuClassName, ModelName | None, int]
Variable: TypeAlias = mathopt.Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be solved, before any solver sees it.

    Attributes:
        laid_out: groups whose GPUs are counted by patterns, because their shares leave holes.
    """

    task: Task
    paths: tuple[CandidatePath, ...]
    laid_out: frozenset[Group] = frozenset()

    def pools(self) -> tuple[CandidatePool, ...]:
        """Return the pools of all paths, each once, in a fixed order."""
        return tuple(dict.fromkeys(pool for path in self.paths for pool in path.pools))


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulation:
    """A MathOpt model and its variables.

    Attributes:
        z: the least weighted throughput; None unless it is sought.
        rate: the rows that make a model's flow reach its rate.
        gpus: in use, by class; whole GPUs unless the task counts parts.
        count: the rows that keep `gpus` to what there is.
    """

    program: mathopt.Model
    z: Variable | None
    n: Mapping[CandidatePool, Variable]
    flow: Mapping[CandidatePath, Variable]
    rate: Mapping[ModelName, mathopt.LinearConstraint]
    gpus: Mapping[GpuClassName, Variable]
    count: Mapping[GpuClassName, mathopt.LinearConstraint]


def group_of(pool: CandidatePool, task: Task) -> Group:
    """Return the group whose instances may share GPUs."""
    if task.packing == "whole-gpu":
        return pool.gpu_class.name, None, 0
    return pool.gpu_class.name, pool.model, pool.position


def formulate(problem: Problem) -> Formulation:
    """Build the program of a problem."""
    program = mathopt.Model(name="paths")
    flow = {path: program.add_variable(lb=0.0) for path in problem.paths}
    n = {pool: program.add_variable(lb=0.0, is_integer=True) for pool in problem.pools()}
    z, rate = _add_demand(program, problem.task, flow)
    add_capacity(program, flow, n)
    gpus = _add_gpus(program, problem, n)
    count = _add_limits(program, problem.task, gpus)
    if problem.task.exclusive:
        add_exclusion(program, problem.task, n)
    _add_objective(program, problem.task, z, flow, gpus)
    return Formulation(program=program, z=z, n=n, flow=flow, rate=rate, gpus=gpus, count=count)


def _add_demand(
    program: mathopt.Model, task: Task, flow: Mapping[CandidatePath, Variable]
) -> tuple[Variable | None, dict[ModelName, mathopt.LinearConstraint]]:
    """Make each model's flow reach weight · z, and its rate if it asks for one."""
    rate = {}
    z = program.add_variable(lb=0.0, name="z") if isinstance(task.sought, MaxMin) else None
    flows: defaultdict[ModelName, list[Variable]] = defaultdict(list)
    for path, variable in flow.items():
        flows[path.model].append(variable)
    for model in task.models:
        rows = []
        if model.rate_rps:
            rate[model.name] = program.add_linear_constraint(lb=model.rate_rps)
            rows.append(rate[model.name])
        if z is not None:
            rows.append(program.add_linear_constraint(lb=0.0))
            rows[-1].set_coefficient(z, -model.weight)
        for row in rows:
            for variable in flows[model.name]:
                row.set_coefficient(variable, 1.0)
    return z, rate


def add_capacity(
    program: mathopt.Model,
    flow: Mapping[CandidatePath, Variable],
    n: Mapping[CandidatePool, Variable | int],
) -> None:
    """Keep every pool's instances and their links at or below full use."""
    rows: dict[CandidatePool, mathopt.LinearConstraint] = {}
    for path, variable in flow.items():
        for position, pool in enumerate(path.pools):
            if pool not in rows:
                rows[pool] = _capacity_row(program, n[pool])
            rows[pool].set_coefficient(variable, path.load(position))


def _capacity_row(program: mathopt.Model, n: Variable | int) -> mathopt.LinearConstraint:
    if isinstance(n, int):
        return program.add_linear_constraint(ub=float(n))
    row = program.add_linear_constraint(ub=0.0)
    row.set_coefficient(n, -1.0)
    return row


def _add_gpus(
    program: mathopt.Model, problem: Problem, n: Mapping[CandidatePool, Variable]
) -> dict[GpuClassName, Variable]:
    """Add the GPUs in use of each class: the sum over its groups."""
    task = problem.task
    groups: defaultdict[Group, list[CandidatePool]] = defaultdict(list)
    for pool in n:
        groups[group_of(pool, task)].append(pool)
    whole = not isinstance(task.sought, Cheapest) or task.sought.whole
    rounded = whole or task.packing == "per-stage"
    used: defaultdict[GpuClassName, list[Variable]] = defaultdict(list)
    for group, pools in groups.items():
        variable = program.add_variable(lb=0.0, is_integer=rounded)
        used[group[0]].append(variable)
        if group in problem.laid_out:
            _lay_out(program, pools, n, variable)
        else:
            _sum_up(program, pools, n, variable)
    return {each.name: _total(program, used[each.name]) for each in task.gpu_classes}


def _total(program: mathopt.Model, parts: Sequence[Variable]) -> Variable:
    if len(parts) == 1:
        return parts[0]
    total = program.add_variable(lb=0.0)
    row = program.add_linear_constraint(lb=0.0, ub=0.0)
    row.set_coefficient(total, -1.0)
    for part in parts:
        row.set_coefficient(part, 1.0)
    return total


def _sum_up(
    program: mathopt.Model,
    pools: Iterable[CandidatePool],
    n: Mapping[CandidatePool, Variable],
    gpus: Variable,
) -> None:
    """Make `gpus` at least the sum of shares; in whole numbers, as solvers like them."""
    common = math.lcm(*(pool.m for pool in pools))
    row = program.add_linear_constraint(ub=0.0)
    row.set_coefficient(gpus, -float(common))
    for pool in pools:
        row.set_coefficient(n[pool], float(common // pool.m))


def _lay_out(
    program: mathopt.Model,
    pools: Sequence[CandidatePool],
    n: Mapping[CandidatePool, Variable],
    gpus: Variable,
) -> None:
    """Make `gpus` at least the number of GPUs whose patterns hold all instances."""
    sizes = sorted({pool.m for pool in pools})
    patterns = maximal_patterns(sizes)
    chosen = [program.add_variable(lb=0.0, is_integer=True) for _ in patterns]
    for index, m in enumerate(sizes):
        row = program.add_linear_constraint(ub=0.0)
        for pool in pools:
            if pool.m == m:
                row.set_coefficient(n[pool], 1.0)
        for variable, pattern in zip(chosen, patterns, strict=True):
            row.set_coefficient(variable, -float(pattern[index]))
    row = program.add_linear_constraint(ub=0.0)
    row.set_coefficient(gpus, -1.0)
    for variable in chosen:
        row.set_coefficient(variable, 1.0)


def _add_limits(
    program: mathopt.Model, task: Task, gpus: Mapping[GpuClassName, Variable]
) -> dict[GpuClassName, mathopt.LinearConstraint]:
    rows = {}
    for name, variable in gpus.items():
        rows[name] = program.add_linear_constraint(ub=float(task.limits.count[name]))
        rows[name].set_coefficient(variable, 1.0)
    if task.limits.max_price is not None and not task.minimises_price:
        row = program.add_linear_constraint(ub=task.limits.max_price)
        for name, variable in gpus.items():
            row.set_coefficient(variable, task.limits.price[name])
    return rows


def add_exclusion(program: mathopt.Model, task: Task, n: Mapping[CandidatePool, Variable]) -> None:
    """Open at most one pool per model, ordered tuple of classes, and position."""
    rivals: defaultdict[tuple[object, ...], list[CandidatePool]] = defaultdict(list)
    for pool in n:
        rivals[pool.model, pool.route, pool.position].append(pool)
    for pools in rivals.values():
        if len(pools) == 1:
            continue
        one = program.add_linear_constraint(ub=1.0)
        for pool in pools:
            is_open = program.add_variable(lb=0.0, ub=1.0, is_integer=True)
            one.set_coefficient(is_open, 1.0)
            most = task.limits.count[pool.gpu_class.name] * pool.m
            row = program.add_linear_constraint(ub=0.0)
            row.set_coefficient(n[pool], 1.0)
            row.set_coefficient(is_open, -float(most))


def _add_objective(
    program: mathopt.Model,
    task: Task,
    z: Variable | None,
    flow: Mapping[CandidatePath, Variable],
    gpus: Mapping[GpuClassName, Variable],
) -> None:
    program.objective.is_maximize = task.maximise
    put = program.objective.set_linear_coefficient
    match task.sought:
        case MaxMin():
            if z is not None:
                put(z, 1.0)
        case Goodput():
            for variable in flow.values():
                put(variable, 1.0)
        case Cheapest(price=price):
            for name, variable in gpus.items():
                put(variable, price[name])

"""The path formulation as a mixed-integer program.

    max z
    Σ flow[path of model] ≥ weight · z              for every model
    Σ flow[path of model] ≥ rate_rps                for every model that asks for a rate
    Σ load(path, pool) · flow[path] ≤ n[pool]       for every pool; computing, receiving, sending
    Σ n[pool] / m[pool] ≤ gpus[model, position, class]     over the pools of that group
    Σ gpus[·, ·, class] ≤ count[class]              for every GPU class

n and gpus are integers, flows (samples/s) are not. `load` is 1/x, the inverse of PPipe's instance
throughput, so paths with different links may share a pool. This module and `planner.solve` are
the only ones that know OR-Tools.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ortools.math_opt.python import mathopt

from penstock.domain.cluster import GpuClass, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from planner.candidates import CandidatePath, CandidatePool

Group: TypeAlias = tuple[ModelName, int, GpuClassName]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be solved, before any solver sees it.

    Attributes:
        split_shares: groups in which each share is rounded up to whole GPUs by itself, because
            its mixed shares could not be packed otherwise.
    """

    gpu_classes: tuple[GpuClass, ...]
    models: tuple[ServedModel, ...]
    paths: tuple[CandidatePath, ...]
    split_shares: frozenset[Group] = frozenset()

    def pools(self) -> tuple[CandidatePool, ...]:
        """Return the pools of all paths, each once, in a fixed order."""
        return tuple(dict.fromkeys(pool for path in self.paths for pool in path.pools))


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulation:
    """A MathOpt model and its variables.

    Attributes:
        extra: GPUs of a class beyond its count; held at zero unless someone lifts the bound to
            ask what is missing.
    """

    program: mathopt.Model
    z: mathopt.Variable
    n: Mapping[CandidatePool, mathopt.Variable]
    flow: Mapping[CandidatePath, mathopt.Variable]
    gpus: Sequence[mathopt.Variable]
    extra: Mapping[GpuClassName, mathopt.Variable]


def group_of(pool: CandidatePool) -> Group:
    """Return the group whose instances may share GPUs."""
    return pool.model, pool.position, pool.gpu_class.name


def formulate(problem: Problem, *, integer: bool = True) -> Formulation:
    """Build the program that maximises the least weighted throughput.

    Args:
        problem: paths, models and GPU counts.
        integer: False relaxes instances and GPUs to real numbers, for the bound.
    """
    program = mathopt.Model(name="paths")
    z = program.add_variable(lb=0.0, name="z")
    flow = {
        path: program.add_variable(lb=0.0, name=f"flow[{number}]")
        for number, path in enumerate(problem.paths)
    }
    n = {
        pool: program.add_variable(lb=0.0, is_integer=integer, name=f"n[{number}]")
        for number, pool in enumerate(problem.pools())
    }
    _add_demand(program, problem, flow, z)
    add_capacity(program, flow, n)
    gpus, extra = _add_inventory(program, problem, n, integer=integer)
    program.maximize(z)
    return Formulation(program=program, z=z, n=n, flow=flow, gpus=gpus, extra=extra)


def _add_demand(
    program: mathopt.Model,
    problem: Problem,
    flow: Mapping[CandidatePath, mathopt.Variable],
    z: mathopt.Variable | float,
) -> None:
    """Make each model's flow reach weight · z, and its rate if it asks for one."""
    flows: defaultdict[ModelName, list[mathopt.Variable]] = defaultdict(list)
    for path, variable in flow.items():
        flows[path.model].append(variable)
    for model in problem.models:
        total = mathopt.fast_sum(flows[model.name])
        program.add_linear_constraint(total - model.weight * z >= 0, name=f"serve[{model.name}]")
        if model.rate_rps is not None:
            program.add_linear_constraint(total >= model.rate_rps, name=f"rate[{model.name}]")


def add_capacity(
    program: mathopt.Model,
    flow: Mapping[CandidatePath, mathopt.Variable],
    n: Mapping[CandidatePool, mathopt.Variable | int],
) -> None:
    """Keep every pool's instances and their links at or below full use."""
    users: defaultdict[CandidatePool, list[tuple[CandidatePath, tuple[float, ...]]]]
    users = defaultdict(list)
    for path in flow:
        for position, pool in enumerate(path.pools):
            users[pool].append((path, path.loads(position)))
    for pool, paths in users.items():
        for row in _needed_rows([loads for _, loads in paths]):
            busy = mathopt.fast_sum(
                load * flow[path] for (path, _), load in zip(paths, row, strict=True)
            )
            program.add_linear_constraint(busy - n[pool] <= 0)


def _needed_rows(loads: Sequence[tuple[float, ...]]) -> Iterator[tuple[float, ...]]:
    """Yield the rows compute, receive, send, without those that an earlier row implies."""
    kept: list[tuple[float, ...]] = []
    for row in sorted(zip(*loads, strict=True), key=sum, reverse=True):
        if not any(all(map(_at_most, row, other)) for other in kept):
            kept.append(row)
            yield row


def _at_most(left: float, right: float) -> bool:
    return left <= right


def _add_inventory(
    program: mathopt.Model,
    problem: Problem,
    n: Mapping[CandidatePool, mathopt.Variable],
    *,
    integer: bool,
) -> tuple[list[mathopt.Variable], dict[GpuClassName, mathopt.Variable]]:
    """Round shares up to whole GPUs per group, and keep to the count of each class."""
    by_class: defaultdict[GpuClassName, list[mathopt.Variable]] = defaultdict(list)
    for number, pools in enumerate(_rounding_groups(problem, n)):
        gpu_class = pools[0].gpu_class.name
        gpus = program.add_variable(lb=0.0, is_integer=integer, name=f"gpus[{number}]")
        common = math.lcm(*(pool.m for pool in pools))
        held = mathopt.fast_sum(common // pool.m * n[pool] for pool in pools)
        program.add_linear_constraint(held - common * gpus <= 0)
        by_class[gpu_class].append(gpus)
    extra = {}
    for each in problem.gpu_classes:
        extra[each.name] = program.add_variable(lb=0.0, ub=0.0, name=f"extra[{each.name}]")
        used = mathopt.fast_sum(by_class[each.name])
        program.add_linear_constraint(
            used - extra[each.name] <= each.count, name=f"count[{each.name}]"
        )
    return [gpus for variables in by_class.values() for gpus in variables], extra


def _rounding_groups(
    problem: Problem, pools: Iterable[CandidatePool]
) -> Iterable[Sequence[CandidatePool]]:
    groups: defaultdict[tuple[Group, int], list[CandidatePool]] = defaultdict(list)
    for pool in pools:
        group = group_of(pool)
        groups[group, pool.m if group in problem.split_shares else 0].append(pool)
    return groups.values()

"""Planning beside a running plan: of solutions that are as good, the one that changes least.

An instance is kept if the new plan has one with the same blocks of the same model on the same class
and share: its batch may change without loading anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from penstock.domain.plan import Plan
from planner.candidates import CandidatePool
from planner.formulation import Formulation, Problem, formulate
from planner.paths import StageKey
from planner.solution import Instances, Solution, counts, hold_value, with_flows
from planner.solve import Job, SolverSettings, run

Running: TypeAlias = Mapping[StageKey, int]


def running_stages(plan: Plan) -> Running:
    """Return the instances that a plan runs, by stage."""
    stages: Counter[StageKey] = Counter()
    for model in plan.models:
        for pool in model.pools:
            span = pool.first_block, pool.end_block
            stages[model.model, *span, pool.gpu_class, pool.share.denominator] += pool.instances
    return stages


def kept_instances(instances: Instances, running: Running) -> int:
    """Return how many running instances a solution keeps."""
    wanted: Counter[StageKey] = Counter()
    for pool, count in instances.items():
        wanted[_stage_of(pool)] += count
    return sum(min(count, running.get(stage, 0)) for stage, count in wanted.items())


def keep_running(
    problem: Problem, running: Running, value: float, settings: SolverSettings
) -> Solution | None:
    """Return the solution of at least that value that keeps most; None if none was found."""
    worth = 1.0 + sum(problem.task.limits.count.values())
    formulation = least_lost(problem, running, value, worth)
    for variable in formulation.gpus.values():  # of equals, the one with fewest GPUs
        formulation.program.objective.set_linear_coefficient(variable, 1.0)
    answer = run(Job(program=formulation.program), settings)
    if not answer.values:
        return None
    return with_flows(problem, counts(formulation, answer.values))


def least_lost(problem: Problem, running: Running, value: float, worth: float) -> Formulation:
    """Return the program that reaches a value and loses least; each that is lost costs `worth`."""
    formulation = formulate(problem)
    hold_value(formulation, problem.task, value)
    formulation.program.objective.clear()
    formulation.program.objective.is_maximize = False
    charge_lost(formulation, running, worth)
    return formulation


def charge_lost(formulation: Formulation, running: Running, worth: float) -> None:
    """Let every running instance that is lost cost something in a program that seeks least.

    A charge rather than a reward: the objective stays well above nothing, and so does what a
    relative gap allows.
    """
    program = formulation.program
    for stage, pools in _pools_by_stage(formulation.n).items():
        if stage not in running:
            continue
        lost = program.add_variable(lb=0.0)
        program.objective.set_linear_coefficient(lost, worth)
        row = program.add_linear_constraint(lb=float(running[stage]))
        row.set_coefficient(lost, 1.0)
        for pool in pools:
            row.set_coefficient(formulation.n[pool], 1.0)


def _pools_by_stage(pools: Iterable[CandidatePool]) -> dict[StageKey, list[CandidatePool]]:
    found: defaultdict[StageKey, list[CandidatePool]] = defaultdict(list)
    for pool in pools:
        found[_stage_of(pool)].append(pool)
    return found


def _stage_of(pool: CandidatePool) -> StageKey:
    return pool.model, pool.first_block, pool.end_block, pool.gpu_class.name, pool.m

"""Programs over some of the paths: which, and what becomes of what the solver finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.fixing import surviving
from planner.formulation import Formulation, Group, Problem, formulate
from planner.paths import Floats, Ints, PathTable
from planner.progress import Progress
from planner.solution import Instances, counts, finish, loose_groups
from planner.solve import Answer, Job, SolverSettings, run
from planner.sought import MaxMin, Task

FEW_PATHS = 300  # of all models: so few are searched at once
NEAR_NODES = 50  # of the tree of a program that only has to find something
_NEAR_GAP = 1e-3
_NOTHING = 1e-7  # relative to the bound


def problem_of(task: Task, tables: Sequence[PathTable], chosen: Sequence[Ints]) -> Problem:
    """Return the problem over the chosen paths of each model's table."""
    paths = tuple(
        path
        for table, numbers in zip(tables, chosen, strict=True)
        for path in table.candidates(numbers)
    )
    return Problem(task=task, paths=paths)


def reduced_costs(state: Progress, table: PathTable) -> Floats:
    """Return what each path of a table loses against the relaxation, per sample/s."""
    return state.relaxation.reduced_costs(table, [each.name for each in state.task.gpu_classes])


def only_chosen(chosen: Ints, costs: Floats) -> Floats:
    """Return the costs with all paths out of reach but the chosen ones."""
    far = np.full(len(costs), np.inf)
    far[chosen] = costs[chosen]
    return far


def nearest(costs: Floats, most: int) -> Ints:
    """Return the paths that lose least, in their own order."""
    most = min(most, int(np.isfinite(costs).sum()))
    return np.sort(np.argsort(costs, kind="stable")[:most])


def surviving_paths(
    state: Progress,
    tables: Sequence[PathTable],
    costs: Sequence[Floats],
) -> list[Ints]:
    """Return the paths that may be part of a plan better than the incumbent.

    A pool that is opened has one instance at least. What that loses is linear in the flow through
    it: at no flow the instance stands idle, at full flow the best path through it loses its reduced
    cost; the least of the two ends is lost in any case. A pool that loses more than incumbent and
    bound are apart is not part of a better plan, nor is any path through it.
    """
    if state.best is None:
        return [np.flatnonzero(np.isfinite(each)) for each in costs]
    room = abs(state.bound - state.best.value)
    prices = np.array([state.relaxation.price[each.name] for each in state.task.gpu_classes])
    return [surviving(table, cost, prices, room) for table, cost in zip(tables, costs, strict=True)]


def search_program(state: Progress, problem: Problem, *, complete: bool, nodes: int | None) -> None:
    """Solve a program and take what it finds; its bound counts if it holds all that matters."""
    while True:
        formulation = formulate(problem)
        answer = run(
            Job(program=formulation.program, node_limit=nodes),
            state.settings if complete else _eager(state.settings),
        )
        state.interrupted |= answer.interrupted
        if complete:
            _take_bound(state, answer)
        loose = _take(state, problem, formulation, answer)
        if loose <= problem.laid_out or not state.open:
            return
        problem = replace(problem, laid_out=problem.laid_out | loose)


def _eager(settings: SolverSettings) -> SolverSettings:
    """Return settings for a program that only has to find something good."""
    return replace(settings, relative_gap=max(_NEAR_GAP, settings.relative_gap))


def _take_bound(state: Progress, answer: Answer) -> None:
    idle = answer.finished and bool(answer.values) and not _serves(state, answer)
    if (answer.none or idle) and state.best is None:
        state.none = True
    elif not answer.none:
        state.tighten(answer.bound)


def _take(
    state: Progress, problem: Problem, formulation: Formulation, answer: Answer
) -> frozenset[Group]:
    """Take a solution; return the groups that it leaves holes in."""
    if not answer.values:
        return frozenset()
    rough = counts(formulation, answer.values)
    loose = loose_groups(state.task, rough)
    if not loose and _serves(state, answer):
        settle(state, problem, rough, answer.value)
    return loose


def _serves(state: Progress, answer: Answer) -> bool:
    """Tell whether every model gets something: a hair above nothing is a solver's tolerance."""
    if not isinstance(state.task.sought, MaxMin):
        return True
    return answer.value > _NOTHING * state.relaxation.bound


def settle(state: Progress, problem: Problem, rough: Instances, value: float) -> None:
    """Take instances of that value, if they are the best, after finding the best flows for them."""
    if state.best is not None and not state.better(value, state.best.value):
        return
    solution = finish(problem, rough, value, state.settings)
    if not loose_groups(state.task, solution.instances):
        state.offer(solution)

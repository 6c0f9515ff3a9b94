"""From a task and its paths to the best solution there is, or the best found in time.

Phases, each of them only as long as a gap is left:

1. *relaxation*: the bound, and what every path loses against it;
2. *bundles*: one bundle of instances per model, chosen so that they fit (`planner.assemble`);
3. *incumbent*: a program over the paths that lose least; something is at hand from here on;
4. *fixing*: pools that could not take part in a better plan than the incumbent are dropped;
5. *search*: the program over all that is left, with a limit on its tree;
6. *decomposition*: target by target, model by model (`planner.decompose`).

Every phase keeps the value and the bound it inherits or betters them. Only time limits make results
depend on the machine: the tree limit counts nodes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from penstock.domain.errors import PlanningFailed
from penstock.domain.plan import SolvePhase
from planner.assemble import Assembler
from planner.keepers import Keepers
from planner.keeping import keep_among_bundles, keep_among_paths, stay
from planner.paths import PathTable
from planner.programs import (
    FEW_PATHS,
    NEAR_NODES,
    nearest,
    only_chosen,
    problem_of,
    reduced_costs,
    search_program,
    surviving_paths,
)
from planner.progress import Progress
from planner.relaxation import Relaxation, relax
from planner.replan import Running
from planner.solution import Solution, loose_groups, with_flows
from planner.solve import SolverSettings
from planner.sought import Cheapest, Goodput, MaxMin, Task
from planner.targets import close_in

_MOST_PATHS = 30_000  # a program over more is not worth its size: the nearest are taken
_NEAR_PATHS = 120  # per model, for the incumbent
_TARGETS = 8  # that bundles are tried at,
_TARGETS_BESIDE = 4  # or so many beside a running plan
_EASY = 0.015  # relative: so much below what the cheapest bundles would allow is the first
_ONE_TARGET = 0.75  # of the time that is left may go into one of them
_UNSHARED = 0.7  # of what the cheapest bundles waste is left where paths share pools, at least
_CLOSE = 5e-4  # relative: targets closer together are not told apart
_DOWN = 0.5  # of what a target that failed was below the bound: so much lower is the next
_SEARCH_NODES = 60  # when decomposition comes after
_EXCEEDS = 1e-9  # relative: closer than this, two prices are the same
# Of the time, where instances are to be kept in what is left of it. A cost moves in steps of whole
# GPUs: a cheaper plan is worth more search than another instance that stays.
_IMPROVING, _IMPROVING_COST = 0.4, 0.65
_HURRIED_S = 5.0  # less is too short to better what bundles found: it goes into keeping instances


def optimise(
    task: Task,
    tables: Sequence[PathTable],
    settings: SolverSettings,
    running: Running | None = None,
) -> Solution | None:
    """Return the best solution found in time; None if there is provably none.

    Args:
        task: what is sought, and within which limits.
        tables: the paths of each model, in the task's order.
        settings: solver, deadline, gap, seed.
        running: stages that run already; of nearly equal solutions one that keeps most of them.

    Raises:
        PlanningFailed: the time was up before any solution was found.
        KeyboardInterrupt: Ctrl-C came before any solution was found.
    """
    started = time.perf_counter()
    relaxation = relax(task, tables)
    if relaxation is None or relaxation.shortfall or _is_hopeless(task, relaxation):
        return None
    state = Progress(task, settings, relaxation, bound=relaxation.bound)
    state.phases["relaxation"] = time.perf_counter() - started
    try:
        if running:
            _improve_and_keep(state, tables, running)
        else:
            _improve(state, tables, *_bundlers(state, tables, None))
    except KeyboardInterrupt:
        state.interrupted = True
        settings.stopped.set()
    if state.none or _is_dearer(task, state.bound):
        return None
    if state.best is None or _is_dearer(task, state.best.value):
        if state.interrupted:
            raise KeyboardInterrupt
        raise PlanningFailed("no plan was found in time; give it more (--time-limit)")
    return _told(state)


def _is_hopeless(task: Task, relaxation: Relaxation) -> bool:
    return isinstance(task.sought, MaxMin) and relaxation.bound <= 0


def _is_dearer(task: Task, price: float) -> bool:
    cap = task.limits.max_price
    return task.minimises_price and cap is not None and price > cap * (1 + _EXCEEDS)


def _told(state: Progress) -> Solution:
    best = state.best
    if best is None:
        raise PlanningFailed("no plan was found")
    # Rounding in a solver may leave the bound a hair on the wrong side of the value.
    bound = best.value if state.better(best.value, state.bound) else state.bound
    told = replace(best, bound=bound)
    return replace(
        told,
        status="optimal" if told.gap <= state.settings.relative_gap else "feasible",
        phases=tuple(
            SolvePhase(name=name, seconds=round(seconds, 3))
            for name, seconds in state.phases.items()
        ),
    )


def _improve_and_keep(state: Progress, tables: Sequence[PathTable], running: Running) -> None:
    """Find the best in a part of the time; in the rest trade it for one that keeps more."""
    settings = state.settings
    part = _IMPROVING_COST if isinstance(state.task.sought, Cheapest) else _IMPROVING
    soon = time.perf_counter() + part * settings.left_s
    hurried = settings.left_s < _HURRIED_S
    assembler, keepers = _bundlers(state, tables, running)
    state.settings = replace(settings, deadline=min(settings.deadline, soon))
    if hurried and assembler is not None:
        with state.phase("bundles"):
            _assemble(state, assembler, keepers)
    else:
        _improve(state, tables, assembler, keepers)
    state.settings = settings
    if state.best is None and state.open:
        _improve(state, tables, assembler, keepers)
    if state.best is None or state.interrupted:
        return
    with state.phase("keeping"):
        if keepers is None:
            keep_among_paths(state, tables, running)
        else:
            keep_among_bundles(state, keepers)


def _bundlers(
    state: Progress, tables: Sequence[PathTable], running: Running | None
) -> tuple[Assembler | None, Keepers | None]:
    """Return what finds bundles, and those that keep what runs; None where bundles do not help.

    They need demands that are known, models that meet at the GPU counts only, and many paths: few
    are searched at once.
    """
    task = state.task
    capped = task.limits.max_price is not None and not task.minimises_price
    if isinstance(task.sought, Goodput) or task.exclusive or capped:
        return None, None
    if not running and sum(map(len, tables)) <= FEW_PATHS:
        return None, None
    with state.phase("bundles"):
        assembler = Assembler(task, tables, state.relaxation)
    return assembler, Keepers(assembler, running, state.settings) if running else None


def _improve(
    state: Progress,
    tables: Sequence[PathTable],
    assembler: Assembler | None,
    keepers: Keepers | None,
) -> None:
    costs = [reduced_costs(state, table) for table in tables]
    if state.task.exclusive:
        costs = [
            only_chosen(table.undominated(), each)
            for table, each in zip(tables, costs, strict=True)
        ]
    everything = sum(int(np.isfinite(each).sum()) for each in costs)
    if assembler is not None:
        with state.phase("bundles"):
            _assemble(state, assembler, keepers)
    if state.best is not None and not state.open:
        return
    with state.phase("incumbent"):
        near = problem_of(state.task, tables, [nearest(each, _NEAR_PATHS) for each in costs])
        whole = len(near.paths) == everything
        search_program(state, near, complete=whole, nodes=None if whole else NEAR_NODES)
    if whole or not state.open:
        return
    with state.phase("fixing"):
        kept = surviving_paths(state, tables, costs)
        complete = sum(map(len, kept)) <= _MOST_PATHS
        if not complete:
            most = _MOST_PATHS // (10 * len(tables))
            kept = [nearest(each, most) for each in costs]
        problem = problem_of(state.task, tables, kept)
    splits = complete and _splits(state, tables)
    alone = splits and len(tables) == 1 and state.best is not None
    if not alone:
        with state.phase("search"):
            search_program(
                state, problem, complete=complete, nodes=_SEARCH_NODES if splits else None
            )
    if splits and state.open:
        with state.phase("decomposition"):
            close_in(state, tables, costs)
    if alone and state.open:
        with state.phase("search"):
            search_program(state, problem, complete=complete, nodes=None)


def _splits(state: Progress, tables: Sequence[PathTable]) -> bool:
    """Tell whether models meet at GPU counts only, so that a target can be asked of each alone."""
    task = state.task
    if not isinstance(task.sought, MaxMin) or task.limits.max_price is not None:
        return False
    # One model with private pools is its own program already; a limited tree has had its chance.
    return (len(tables) > 1 or not task.exclusive) and state.settings.node_limit is None


def _assemble(state: Progress, assembler: Assembler, keepers: Keepers | None) -> None:
    """Find a first solution out of bundles; for max-min, the greatest target they reach."""
    sharing = keepers is None and state.settings.node_limit is None
    if not isinstance(state.task.sought, MaxMin):
        if keepers is not None:
            stay(state, keepers)
            return
        _fit(state, assembler, state.bound)
        if sharing and state.open:
            _fit(state, assembler, state.bound, sharing=True)
        return
    waste = max(0.0, assembler.share(state.bound) - 1) * (_UNSHARED if sharing else 1.0)
    low, high = 0.0, state.bound / (1 + waste)
    wanted = state.bound * (1 - state.settings.relative_gap)
    target = high * (1 - _EASY)
    for number in range(_TARGETS if keepers is None else _TARGETS_BESIDE):
        if not state.open or high - low <= _CLOSE * high or target <= 0:
            return
        if _fit(state, assembler, target, sharing=sharing and number > 0) and state.best:
            low = max(target, state.best.value)
            high = max(low, high)
        else:
            high = target
        target = (low + high) / 2 if low > 0 else high - _DOWN * (state.bound - high)
        if 0 < low < wanted < high:
            target = wanted


def _fit(
    state: Progress,
    assembler: Assembler,
    target: float,
    *,
    sharing: bool = False,
) -> bool:
    """Take instances that reach a target, if bundles do."""
    soon = time.perf_counter() + _ONE_TARGET * state.settings.left_s
    settings = replace(state.settings, deadline=min(state.settings.deadline, soon))
    fitting = assembler.fit(target, settings, sharing=sharing)
    if fitting is None:
        return False
    problem, instances = fitting
    if loose_groups(state.task, instances):
        return False
    state.offer(with_flows(problem, instances))
    return True

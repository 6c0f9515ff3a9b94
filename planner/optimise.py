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

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from penstock.domain.errors import PlanningFailed
from penstock.domain.plan import SolvePhase
from planner.assemble import Assembler
from planner.bundles import Bundle
from planner.decompose import TargetSearch
from planner.fixing import surviving
from planner.formulation import Formulation, Group, Problem, formulate
from planner.keepers import Keepers
from planner.paths import Floats, Ints, PathTable
from planner.relaxation import Relaxation, relax
from planner.replan import Running, keep_running, kept_instances
from planner.solution import (
    Instances,
    Solution,
    counts,
    finish,
    loose_groups,
    only,
    with_flows,
)
from planner.solve import Answer, Job, SolverSettings, run
from planner.sought import Goodput, MaxMin, Task

_MOST_PATHS = 30_000  # a program over more is not worth its size: the nearest are taken
_FEW_PATHS = 300  # of all models: so few are searched at once, without bundles first
_NEAR_PATHS = 120  # per model, for the incumbent
_NEAR_NODES = 50
_TARGETS = 8  # that bundles are tried at
_EASY = 0.015  # relative: so much below what the cheapest bundles would allow is the first
_CLOSE = 5e-4  # relative: targets closer together are not told apart
_DOWN = 0.5  # of what a target that failed was below the bound: so much lower is the next
_FIRST_STRIDE = 0.5  # of the gap asked for: so much below the bound is the first target
_LEAST_STRIDE = 5e-4
_LEVEL_WORK = 200_000  # paths times nodes, where few paths are searched
_EASILY_DECIDED = (150, 1200)  # paths, of one model, of many: all that is left is decided at once
_SEARCH_NODES = 60  # when decomposition comes after
_NEAR_GAP = 1e-3
_EXCEEDS = 1e-9  # relative: closer than this, two prices are the same
_NOTHING = 1e-7  # relative to the bound
_IMPROVING = 0.5  # of the time, where instances are to be kept in what is left of it
_TOO_SHORT_S = 2.0  # to better what bundles found: it is better spent on keeping instances
_KEEPING_PATHS = (0, 20, 120)  # per model, besides those that run
_KEEPING_GAP = 1e-3  # relative: a plan worse by less is as good, if it keeps more instances


@dataclass(slots=True)
class _State:
    """What is known so far; better values and bounds replace worse ones."""

    task: Task
    settings: SolverSettings
    relaxation: Relaxation
    best: Solution | None = None
    bound: float = math.inf
    none: bool = False
    interrupted: bool = False
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        if self.best is None:
            return math.inf
        return replace(self.best, bound=self.bound).gap

    @property
    def open(self) -> bool:
        """Whether there is something left to find, and time to find it."""
        done = self.none or self.interrupted or self.gap <= self.settings.relative_gap
        return not done and self.settings.left_s > 0

    def better(self, left: float, right: float) -> bool:
        return left > right if self.task.maximise else left < right

    def offer(self, solution: Solution) -> None:
        if self.best is None or self.better(solution.value, self.best.value):
            self.best = solution

    def tighten(self, bound: float) -> None:
        if math.isfinite(bound) and self.better(self.bound, bound):
            self.bound = bound

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - started


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
    state = _State(task, settings, relaxation, bound=relaxation.bound)
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


def _told(state: _State) -> Solution:
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


def _improve_and_keep(state: _State, tables: Sequence[PathTable], running: Running) -> None:
    """Find the best in a part of the time; in the rest trade it for one that keeps more."""
    settings = state.settings
    soon = time.perf_counter() + _IMPROVING * settings.left_s
    assembler, keepers = _bundlers(state, tables, running)
    state.settings = replace(settings, deadline=min(settings.deadline, soon))
    _improve(state, tables, assembler, keepers)
    state.settings = settings
    if state.best is None or state.interrupted:
        return
    with state.phase("keeping"):
        if keepers is None:
            _keep_among_paths(state, tables, running)
        else:
            _keep_among_bundles(state, keepers, running)


def _bundlers(
    state: _State, tables: Sequence[PathTable], running: Running | None
) -> tuple[Assembler | None, Keepers | None]:
    """Return what finds bundles, and those that keep what runs; None where bundles do not help.

    They need demands that are known, models that meet at the GPU counts only, and many paths: few
    are searched at once.
    """
    task = state.task
    capped = task.limits.max_price is not None and not task.minimises_price
    if isinstance(task.sought, Goodput) or task.exclusive or capped:
        return None, None
    if not running and sum(map(len, tables)) <= _FEW_PATHS:
        return None, None
    with state.phase("bundles"):
        assembler = Assembler(task, tables, state.relaxation)
    return assembler, Keepers(assembler, running, state.settings) if running else None


def _improve(
    state: _State,
    tables: Sequence[PathTable],
    assembler: Assembler | None,
    keepers: Keepers | None,
) -> None:
    costs = [_reduced_costs(state, table) for table in tables]
    if state.task.exclusive:
        costs = [
            _only(table.undominated(), each) for table, each in zip(tables, costs, strict=True)
        ]
    everything = sum(int(np.isfinite(each).sum()) for each in costs)
    if assembler is not None:
        with state.phase("bundles"):
            _assemble(state, assembler, keepers)
    if state.best is not None and not state.open:
        return
    if state.best is not None and keepers is not None and state.settings.left_s < _TOO_SHORT_S:
        return
    with state.phase("incumbent"):
        near = _problem(state.task, tables, [_nearest(each, _NEAR_PATHS) for each in costs])
        whole = len(near.paths) == everything
        _search(state, near, complete=whole, nodes=None if whole else _NEAR_NODES)
    if whole or not state.open:
        return
    with state.phase("fixing"):
        kept = _surviving(state, tables, costs)
        complete = sum(map(len, kept)) <= _MOST_PATHS
        if not complete:
            most = _MOST_PATHS // (10 * len(tables))
            kept = [_nearest(each, most) for each in costs]
        problem = _problem(state.task, tables, kept)
    splits = isinstance(state.task.sought, MaxMin) and (len(tables) > 1 or not state.task.exclusive)
    splits = splits and state.task.limits.max_price is None and complete
    splits = splits and state.settings.node_limit is None
    alone = splits and len(tables) == 1 and state.best is not None
    if not alone:
        with state.phase("search"):
            _search(state, problem, complete=complete, nodes=_SEARCH_NODES if splits else None)
    if splits and state.open:
        with state.phase("decomposition"):
            _decompose(state, tables, costs)
    if alone and state.open:
        with state.phase("search"):
            _search(state, problem, complete=complete, nodes=None)


def _assemble(state: _State, assembler: Assembler, keepers: Keepers | None) -> None:
    """Find a first solution out of bundles; for max-min, the greatest target they reach."""
    if not isinstance(state.task.sought, MaxMin):
        _fit(state, assembler, state.bound, () if keepers is None else keepers.cheap(state.bound))
        return
    low, high = 0.0, state.bound / max(1.0, assembler.share(state.bound))
    target = high * (1 - _EASY)
    for _ in range(_TARGETS):
        if not state.open or high - low <= _CLOSE * high or target <= 0:
            return
        if _fit(state, assembler, target) and state.best is not None:
            low = max(target, state.best.value)
            high = max(low, high)
        else:
            high = target
        target = (low + high) / 2 if low > 0 else high - _DOWN * (state.bound - high)


def _fit(
    state: _State, assembler: Assembler, target: float, more: Sequence[Sequence[Bundle]] = ()
) -> bool:
    """Take instances that reach a target, if bundles do."""
    fitting = assembler.fit(target, state.settings, more)
    if fitting is None:
        return False
    problem, instances = fitting
    if loose_groups(state.task, instances):
        return False
    state.offer(with_flows(problem, instances))
    return True


def _keep_among_bundles(state: _State, keepers: Keepers, running: Running) -> None:
    best = state.best
    if best is None:
        return
    for problem, instances in keepers.trades(_good_enough(state, best), best.flows):
        _trade(state, with_flows(problem, instances), running)


def _keep_among_paths(state: _State, tables: Sequence[PathTable], running: Running) -> None:
    """Trade the best solution for one as good that changes less, among more and more paths.

    First among those that run and those of the best solution: few, and often enough.
    """
    best = state.best
    if best is None:
        return
    costs = [_reduced_costs(state, table) for table in tables]
    for near in _KEEPING_PATHS:
        if state.settings.left_s <= 0:
            return
        chosen = [
            np.union1d(_nearest(each, near), table.running(running))
            for each, table in zip(costs, tables, strict=True)
        ]
        problem = _problem(state.task, tables, chosen)
        problem = replace(problem, paths=tuple(dict.fromkeys((*best.flows, *problem.paths))))
        kept = keep_running(problem, running, _good_enough(state, best), state.settings)
        if kept is not None:
            _trade(state, kept, running)


def _good_enough(state: _State, best: Solution) -> float:
    """Return the value that a solution must reach to be as good as the best: within the gap."""
    gap = max(_KEEPING_GAP, state.settings.relative_gap)
    return best.value * (1 - gap if state.task.maximise else 1 + gap)


def _trade(state: _State, kept: Solution, running: Running) -> None:
    """Take a solution as good as the best if it keeps more instances."""
    if state.best is None or loose_groups(state.task, kept.instances):
        return
    if kept_instances(kept.instances, running) > kept_instances(state.best.instances, running):
        state.best = kept


def _problem(task: Task, tables: Sequence[PathTable], chosen: Sequence[Ints]) -> Problem:
    paths = tuple(
        path
        for table, numbers in zip(tables, chosen, strict=True)
        for path in table.candidates(numbers)
    )
    return Problem(task=task, paths=paths)


def _reduced_costs(state: _State, table: PathTable) -> Floats:
    return state.relaxation.reduced_costs(table, [each.name for each in state.task.gpu_classes])


def _only(chosen: Ints, costs: Floats) -> Floats:
    """Return the costs with all paths out of reach but the chosen ones."""
    far = np.full(len(costs), np.inf)
    far[chosen] = costs[chosen]
    return far


def _nearest(costs: Floats, most: int) -> Ints:
    """Return the paths that lose least, in their own order."""
    most = min(most, int(np.isfinite(costs).sum()))
    return np.sort(np.argsort(costs, kind="stable")[:most])


def _surviving(
    state: _State,
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


def _search(state: _State, problem: Problem, *, complete: bool, nodes: int | None) -> None:
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


def _take_bound(state: _State, answer: Answer) -> None:
    idle = answer.finished and bool(answer.values) and not _serves(state, answer)
    if (answer.none or idle) and state.best is None:
        state.none = True
    elif not answer.none:
        state.tighten(answer.bound)


def _take(
    state: _State, problem: Problem, formulation: Formulation, answer: Answer
) -> frozenset[Group]:
    """Take a solution; return the groups that it leaves holes in."""
    if not answer.values:
        return frozenset()
    rough = counts(formulation, answer.values)
    loose = loose_groups(state.task, rough)
    if not loose and _serves(state, answer):
        _settle(state, problem, rough, answer.value)
    return loose


def _serves(state: _State, answer: Answer) -> bool:
    """Tell whether every model gets something: a hair above nothing is a solver's tolerance."""
    if not isinstance(state.task.sought, MaxMin):
        return True
    return answer.value > _NOTHING * state.relaxation.bound


def _settle(state: _State, problem: Problem, rough: Instances, value: float) -> None:
    if state.best is not None and not state.better(value, state.best.value):
        return
    solution = finish(problem, rough, value, state.settings)
    if not loose_groups(state.task, solution.instances):
        state.offer(solution)


def _decompose(state: _State, tables: Sequence[PathTable], costs: Sequence[Floats]) -> None:
    """Close in on the best value from both sides, target by target.

    Near the bound of the relaxation little may be wasted: that is refuted in no time, and the paths
    that it would have taken are a good place to look for plans.
    """
    closed = [np.isinf(each) for each in costs]
    search = TargetSearch(state.task, tables, closed, state.relaxation, state.settings)
    step = max(state.settings.relative_gap, 1e-9)
    stride = max(_FIRST_STRIDE * step, _LEAST_STRIDE)
    low = 0.0 if state.best is None else state.best.value
    guess = state.bound * (1 - stride)
    while state.open:
        last = low * (1 + step)
        target = max(last, min(guess, state.bound))
        if search.size(last) <= _EASILY_DECIDED[len(tables) > 1]:
            target = last
        verdict = search.decide(target)
        if verdict.refuted:
            state.tighten(target)
            _search_near(state, tables, search)
            low = low if state.best is None else max(low, state.best.value)
            guess = max(target * (1 - stride), (low + target) / 2)
            if 1 < verdict.shares < math.inf:
                guess = min(guess, target / verdict.shares * (1 + step))
            if len(tables) > 1:  # refuted at once where one of many has no room: go on in strides
                stride *= 2
        elif verdict.reached is not None:
            _settle_near(state, tables, search, verdict.reached, target)
            low = target if state.best is None else max(target, state.best.value)
            guess = min((low + state.bound) / 2, target / verdict.shares * (1 + step))
        else:
            return


def _search_near(state: _State, tables: Sequence[PathTable], search: TargetSearch) -> None:
    """Look for something better among the paths that lose so little that they mattered."""
    if all(map(len, search.near)) and sum(map(len, search.near)) <= _FEW_PATHS and state.open:
        near = _problem(state.task, tables, search.near)
        nodes = _LEVEL_WORK // len(near.paths)
        _search(state, near, complete=False, nodes=nodes)


def _settle_near(
    state: _State,
    tables: Sequence[PathTable],
    search: TargetSearch,
    reached: Instances,
    target: float,
) -> None:
    """Take instances that reach a target, and better them among all that targets asked for."""
    problem = _problem(state.task, tables, search.near)
    _settle(state, only(problem, reached), reached, target)
    near = only(problem, search.found)
    _search(state, near, complete=False, nodes=_NEAR_NODES)

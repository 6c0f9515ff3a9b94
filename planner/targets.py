"""Closes in on the best value target by target, model by model (`planner.decompose`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.decompose import TargetSearch
from planner.paths import Floats, PathTable
from planner.programs import FEW_PATHS, NEAR_NODES, problem_of, search_program, settle
from planner.progress import Progress
from planner.solution import Instances, only

_FIRST_STRIDE = 0.5  # of the gap asked for: so much below the bound is the first target
_LEAST_STRIDE = 5e-4
_LEVEL_WORK = 200_000  # paths times nodes, where few paths are searched
_EASILY_DECIDED = (150, 1200)  # paths, of one model, of many: all that is left is decided at once
_ALIKE = 0.4  # of the gap asked for: targets closer together are not worth deciding
_OVER = 1 + 1e-9  # so that rounding does not leave a gap


def close_in(state: Progress, tables: Sequence[PathTable], costs: Sequence[Floats]) -> None:
    """Close in on the best value from both sides, target by target.

    Near the bound of the relaxation little may be wasted: that is refuted in no time. A target that
    is too hard to decide is left, and others are tried between it and the bound; at last the least
    one that would be near enough to the bound.
    """
    closed = [np.isinf(each) for each in costs]
    search = TargetSearch(state.task, tables, closed, state.relaxation, state.settings)
    step = max(state.settings.relative_gap, 1e-9)
    stride = max(_FIRST_STRIDE * step, _LEAST_STRIDE)
    low = 0.0 if state.best is None else state.best.value
    hard = 0.0  # a target that could not be decided
    easy = _EASILY_DECIDED[len(tables) > 1]
    guess = state.bound * (1 - stride)
    while state.open:
        last = low * (1 + step)
        target = min(guess, state.bound)
        near = len(tables) > 1 and target < last * (1 + step)  # as hard, and it is not the end
        if hard < last and (near or target < last or search.size(last) <= easy):
            target = last
        verdict = search.decide(target)
        if verdict.refuted:
            state.tighten(target)
            if len(tables) == 1:
                _search_near(state, tables, search)
            else:  # refuted at once where one of many has no room: go on in strides
                stride *= 2
            low = low if state.best is None else max(low, state.best.value)
            guess = (max(low, hard) + target) / 2
            if hard < last:
                guess = max(guess, target * (1 - stride))
            elif target - hard <= _ALIKE * step * target:
                guess = target / (1 + step) * _OVER
        elif verdict.reached is not None:
            _settle_near(state, tables, search, verdict.reached, target)
            low = target if state.best is None else max(target, state.best.value)
            guess = min((low + state.bound) / 2, target / verdict.shares * (1 + step))
        elif len(tables) == 1 or target < hard:
            return
        else:
            hard = target
            guess = (target + state.bound) / 2
            if state.bound - target <= _ALIKE * step * state.bound:
                guess = state.bound / (1 + step) * _OVER


def _search_near(state: Progress, tables: Sequence[PathTable], search: TargetSearch) -> None:
    """Look for something better among the paths that lose so little that they mattered."""
    if all(map(len, search.near)) and sum(map(len, search.near)) <= FEW_PATHS and state.open:
        near = problem_of(state.task, tables, search.near)
        nodes = _LEVEL_WORK // len(near.paths)
        search_program(state, near, complete=False, nodes=nodes)


def _settle_near(
    state: Progress,
    tables: Sequence[PathTable],
    search: TargetSearch,
    reached: Instances,
    target: float,
) -> None:
    """Take instances that reach a target, and better them among all that targets asked for."""
    problem = problem_of(state.task, tables, search.near)
    settle(state, only(problem, reached), reached, target)
    near = only(problem, search.solver.found)
    search_program(state, near, complete=False, nodes=NEAR_NODES)

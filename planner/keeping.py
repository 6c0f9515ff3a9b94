"""Beside a running plan: trades the best solution for one as good that keeps more of what runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.keepers import Keepers
from planner.paths import PathTable
from planner.programs import nearest, problem_of, reduced_costs
from planner.progress import Progress
from planner.replan import Running, keep_running, kept_instances
from planner.solution import Solution, loose_groups, with_flows

_KEEPING_PATHS = (0, 20, 120)  # per model, besides those that run
_KEEPING_GAP = 1e-3  # relative: a plan worse by less is as good, if it keeps more instances


def stay(state: Progress, keepers: Keepers) -> None:
    """Find the cheapest solutions near what runs; of equals the one that keeps most."""
    for problem, instances in keepers.stays():
        found = with_flows(problem, instances)
        if loose_groups(state.task, found.instances):
            continue
        state.offer(found)
        if state.best is None or not state.better(state.best.value, found.value):
            _trade(state, found, keepers.running)


def keep_among_bundles(state: Progress, keepers: Keepers) -> None:
    """Trade the best solution for one as good that changes less, among bundles of instances."""
    best = state.best
    if best is None:
        return
    for problem, instances in keepers.trades(_good_enough(state, best), best.flows):
        _trade(state, with_flows(problem, instances), keepers.running)


def keep_among_paths(state: Progress, tables: Sequence[PathTable], running: Running) -> None:
    """Trade the best solution for one as good that changes less, among more and more paths.

    First among those that run and those of the best solution: few, and often enough.
    """
    best = state.best
    if best is None:
        return
    costs = [reduced_costs(state, table) for table in tables]
    for near in _KEEPING_PATHS:
        if state.settings.left_s <= 0:
            return
        chosen = [
            np.union1d(nearest(each, near), table.running(running))
            for each, table in zip(costs, tables, strict=True)
        ]
        problem = problem_of(state.task, tables, chosen)
        problem = replace(problem, paths=tuple(dict.fromkeys((*best.flows, *problem.paths))))
        kept = keep_running(problem, running, _good_enough(state, best), state.settings)
        if kept is not None:
            _trade(state, kept, running)


def _good_enough(state: Progress, best: Solution) -> float:
    """Return the value that a solution must reach to be as good as the best: within the gap."""
    gap = max(_KEEPING_GAP, state.settings.relative_gap)
    return best.value * (1 - gap if state.task.maximise else 1 + gap)


def _trade(state: Progress, kept: Solution, running: Running) -> None:
    """Take a solution as good as the best if it keeps more instances."""
    if state.best is None or loose_groups(state.task, kept.instances):
        return
    if kept_instances(kept.instances, running) > kept_instances(state.best.instances, running):
        state.best = kept

"""Solves the programs of `planner.wasting`: what some models take at given prices.

Knows how GPUs are counted; nothing of targets and how they are decided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.candidates import CandidatePool
from planner.least_waste import Cheapest, Market, ModelWaste
from planner.paths import Floats, Ints, PathTable
from planner.solution import Instances, gpus_used
from planner.solve import Job, SolverSettings, run
from planner.sought import Task
from planner.wasting import Terms, WasteProgram


@dataclass(frozen=True, slots=True)
class Effort:
    """How exactly a program is solved, and for how long: nodes of its tree; None: any number."""

    relative_gap: float
    nodes: int | None


class WasteSolver:
    """Counts GPUs, and asks the solver for those that models take.

    Args:
        task: max-min.
        tables: paths of each model.
        settings: solver and deadline.

    Attributes:
        count: (classes,) GPUs that there are.
        per_gpu: (classes,) units that a GPU is counted in: models may share one, or not.
        found: pools that any answer used.
    """

    def __init__(self, task: Task, tables: Sequence[PathTable], settings: SolverSettings) -> None:
        self._task, self._settings = task, settings
        self._names = [each.name for each in task.gpu_classes]
        self.count = np.array([float(task.limits.count[name]) for name in self._names])
        self.per_gpu = np.array([self._units(tables, at) for at in range(len(self._names))])
        self.found: Counter[CandidatePool] = Counter()

    def _units(self, tables: Sequence[PathTable], gpu_class: int) -> int:
        if self._task.packing == "per-stage":
            return 1
        return math.lcm(*(table.denominator(gpu_class) for table in tables))

    def terms(self, prices: Floats) -> Terms:
        """Return prices of a GPU, per class, as programs want them."""
        return Terms(
            price=dict(zip(self._names, prices.tolist(), strict=True)),
            per_gpu=dict(zip(self._names, self.per_gpu.tolist(), strict=True)),
        )

    def solve(
        self,
        models: Sequence[ModelWaste],
        most: float,
        market: Market,
        effort: Effort,
        units: Ints | None = None,
    ) -> Cheapest:
        """Return the cheapest instances of some models, each over the paths last looked at.

        Args:
            models: what they are to be given.
            most: that all may waste together.
            market: what they are to be cheap at.
            effort: how long to look.
            units: (classes,) that may be taken; None: all there are.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
        """
        if not all(len(each.rows) for each in models):
            return Cheapest({}, math.inf, finished=True)
        held = None if units is None else dict(zip(self._names, units.tolist(), strict=True))
        demands = [each.demand() for each in models]
        program = WasteProgram(self._task, market.terms, demands, most, held)
        settings = replace(self._settings, relative_gap=effort.relative_gap)
        answer = run(Job(program=program.program, node_limit=effort.nodes), settings)
        if answer.interrupted:
            raise KeyboardInterrupt
        rounded = {pool: round(answer.values[n]) for pool, n in program.n.items() if answer.values}
        instances = {pool: n for pool, n in rounded.items() if n > 0}
        self.found.update(instances)
        perfect = sum(each.perfect for each in models)
        return Cheapest(
            instances, answer.bound / market.terms.scale - perfect, finished=answer.finished
        )

    def within(self, model: ModelWaste, units: Ints, market: Market, effort: Effort) -> Cheapest:
        """Return what a model can do with.

        Args:
            model: what it is to be given.
            units: (classes,) that may be taken.
            market: what it is to be cheap at.
            effort: how long to look.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
        """
        if self._settings.left_s <= 0:
            return Cheapest({}, 0.0, finished=False)
        most = float(market.prices / self.per_gpu @ units) - model.perfect
        model.look(most - model.least)
        return self.solve([model], most, market, effort, units)

    def gpus(self, instances: Instances) -> Floats:
        """Return the GPUs of each class that instances pay for."""
        if self._task.packing == "per-stage":
            used = gpus_used(self._task, instances)
            return np.array([float(used[name]) for name in self._names])
        at = {name: number for number, name in enumerate(self._names)}
        paid = np.zeros(len(at))
        for pool, n in instances.items():
            paid[at[pool.gpu_class.name]] += n / pool.m
        return paid

    def fits(self, instances: Instances) -> bool:
        """Tell whether there are instances, and GPUs for them: parts of GPUs may leave holes."""
        used = gpus_used(self._task, instances)
        count = self._task.limits.count
        return bool(instances) and all(used[name] <= count[name] for name in used)

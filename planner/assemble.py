"""From bundles of single models to instances of all: one bundle each, so that the GPUs suffice.

Models meet only at the GPU counts, so a program that chooses one bundle per model is small: a row
per GPU class, a row per model. Its linear relaxation tells what the GPUs are worth to whole bundles
(the paths' relaxation knows only parts of instances), and bundles that are cheap at these prices
join in: column generation. Prices shaken at random add others, so that the last, whole-number
choice has something to choose from.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ortools.math_opt.python import mathopt

from planner.bundles import Bundle, Items, Units, cheapest, list_items
from planner.candidates import CandidatePath, CandidatePool
from planner.formulation import Problem
from planner.paths import Floats, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances
from planner.solve import Job, SolverSettings, run
from planner.sought import Cheapest, Task

_SHAKEN = 6  # searches at prices shaken at random
_SPREAD = 0.05  # of the logarithm of shaken prices
_PRICED = 10  # searches at the prices of bundles, at most
_OLD = 0.5  # how much of the old prices stays in the new ones: they swing less
_LEAST = 0.3  # of its price: a class that bundles have in plenty costs this much still
_CHOICE_NODES = 3000
_CHOICE_TIME_S = 8.0
_NO_GPU = 1e4  # a GPU that is missing costs this many times its price, where GPUs have a price
_NONE_OVER = 1e-6  # GPUs


class Assembler:
    """Finds instances that carry every model's demand."""

    def __init__(
        self,
        task: Task,
        tables: Sequence[PathTable],
        relaxation: Relaxation,
        settings: SolverSettings,
    ) -> None:
        self._task = task
        self._tables = tables
        self._settings = settings
        self._names = [each.name for each in task.gpu_classes]
        self._per_gpu = [self._units_per_gpu(number) for number in range(len(self._names))]
        self._count = np.array([task.limits.count[name] for name in self._names], dtype=float)
        dearest = max(relaxation.price.values()) or 1.0
        # What nobody is short of still costs a little, so that it is not wasted.
        self._price = np.maximum([relaxation.price[name] for name in self._names], 1e-3 * dearest)
        self._items = [
            self._list(number, relaxation, self.demand(number, relaxation.bound))
            for number in range(len(tables))
        ]

    def _units_per_gpu(self, number: int) -> int:
        if self._task.packing == "per-stage":
            return 1
        return math.lcm(*(table.denominator(number) for table in self._tables))

    def _list(self, number: int, relaxation: Relaxation, demand: float) -> Items:
        table = self._tables[number]
        costs = relaxation.reduced_costs(table, self._names)
        worth = relaxation.worth[table.model.served.name]
        return list_items(table, costs, worth, self._price, demand, self._per_gpu)

    def demand(self, number: int, target: float) -> float:
        """Return the samples/s that a model has to be given."""
        model = self._task.models[number]
        if isinstance(self._task.sought, Cheapest):
            return model.rate_rps or 0.0
        return max(model.weight * target, model.rate_rps or 0.0)

    def share(self, target: float) -> float:
        """Return the part of the fleet that the cheapest bundles take; infinite if one has none."""
        found = [self._cheapest(n, target, self._unit_prices()) for n in range(len(self._items))]
        if not all(found):
            return math.inf
        units = sum(np.array(bundles[0].units) for bundles in found)
        return float(units @ self._unit_prices() / (self._price @ self._count))

    def fit(self, target: float) -> tuple[Problem, Instances] | None:
        """Return instances that carry `target` times every weight, and the paths through them.

        None if no bundles were found that fit together: which proves nothing.
        """
        bundles = self._gather(target)
        if not all(bundles) or self._settings.left_s <= 0:
            return None
        chosen = _Choice(self._task, self._price, self._per_gpu, bundles).whole(self._settings)
        if chosen is None:
            return None
        paths: list[CandidatePath] = []
        instances: dict[CandidatePool, int] = {}
        for table, bundle in zip(self._tables, chosen, strict=True):
            instances |= _instances(table, bundle)
            paths += table.candidates(table.within(np.array([path for path, _ in bundle.flows])))
        return Problem(task=self._task, paths=tuple(paths)), instances

    def _gather(self, target: float) -> list[list[Bundle]]:
        found: list[dict[Units, Bundle]] = [{} for _ in self._items]
        rng = np.random.default_rng(self._settings.seed)
        for number in range(_SHAKEN):
            shaken = np.exp(rng.normal(0.0, _SPREAD, len(self._price))) if number else 1.0
            self._join(found, target, self._unit_prices() * shaken)
        prices = self._unit_prices()
        for _ in range(_PRICED):
            if not all(found) or self._settings.left_s <= 0:
                break
            bundles = [list(each.values()) for each in found]
            scarcity = _Choice(self._task, self._price, self._per_gpu, bundles).prices()
            least = _LEAST * self._unit_prices()
            prices = _OLD * prices + (1 - _OLD) * np.maximum(scarcity, least)
            if not self._join(found, target, prices):
                break
        return [list(each.values()) for each in found]

    def _join(self, found: Sequence[dict[Units, Bundle]], target: float, prices: Floats) -> bool:
        """Add bundles that are cheap at these prices; tell whether any is new."""
        before = sum(map(len, found))
        for number, known in enumerate(found):
            for bundle in self._cheapest(number, target, prices):
                known.setdefault(bundle.units, bundle)
        return sum(map(len, found)) > before

    def _cheapest(self, number: int, target: float, unit_prices: Floats) -> list[Bundle]:
        return cheapest(self._items[number], unit_prices, self.demand(number, target))

    def _unit_prices(self) -> Floats:
        prices: Floats = self._price / np.array(self._per_gpu)
        return prices


def _instances(table: PathTable, bundle: Bundle) -> dict[CandidatePool, int]:
    """Return the instances that a bundle's flows take; what two paths have in common is shared."""
    busy: defaultdict[CandidatePool, float] = defaultdict(float)
    rows = np.array([path for path, _ in bundle.flows])
    for path, (_, flow) in zip(table.candidates(rows), bundle.flows, strict=True):
        for position, pool in enumerate(path.pools):
            busy[pool] += path.load(position) * flow
    return {pool: math.ceil(load - 1e-9) for pool, load in busy.items()}


class _Choice:
    """The program that takes one bundle of each model."""

    def __init__(
        self,
        task: Task,
        price: Floats,
        per_gpu: Sequence[int],
        bundles: Sequence[Sequence[Bundle]],
    ) -> None:
        self._program = mathopt.Model(name="bundles")
        self._bundles = bundles
        self._per_gpu = per_gpu
        add = self._program.add_variable
        names = [each.name for each in task.gpu_classes]
        self._gpus = [add(lb=0.0, ub=float(task.limits.count[name])) for name in names]
        self._over = [add(lb=0.0) for _ in names]
        self._rows = [self._class_row(number) for number in range(len(names))]
        self._taken = [[self._add_bundle(each) for each in own] for own in bundles]
        for own in self._taken:
            row = self._program.add_linear_constraint(lb=1.0, ub=1.0)
            for variable in own:
                row.set_coefficient(variable, 1.0)
        self._priced = isinstance(task.sought, Cheapest)
        for number, name in enumerate(names):
            missing = float(price[number])
            if isinstance(task.sought, Cheapest):
                missing *= _NO_GPU
                cost = task.sought.price[name]
                self._program.objective.set_linear_coefficient(self._gpus[number], cost)
            self._program.objective.set_linear_coefficient(self._over[number], missing)

    def _class_row(self, number: int) -> mathopt.LinearConstraint:
        """Return the row that holds a class's units to its GPUs and those it is short of."""
        row = self._program.add_linear_constraint(ub=0.0)
        for variable in (self._gpus[number], self._over[number]):
            row.set_coefficient(variable, -float(self._per_gpu[number]))
        return row

    def _add_bundle(self, bundle: Bundle) -> mathopt.Variable:
        variable = self._program.add_variable(lb=0.0)
        for row, units in zip(self._rows, bundle.units, strict=True):
            if units:
                row.set_coefficient(variable, float(units))
        return variable

    def prices(self) -> Floats:
        """Return what a unit of each class is worth to bundles that need not be whole."""
        duals = mathopt.solve(self._program, mathopt.SolverType.GLOP).dual_values()
        return np.array([abs(duals[row]) for row in self._rows])

    def whole(self, settings: SolverSettings) -> list[Bundle] | None:
        """Return a bundle of each model that fit together; None if none were found."""
        for own in self._taken:
            for variable in own:
                variable.integer = True
        for variable in self._gpus if self._priced else ():
            variable.integer = True
        soon = min(settings.deadline, time.perf_counter() + _CHOICE_TIME_S)
        answer = run(
            Job(program=self._program, node_limit=_CHOICE_NODES), replace(settings, deadline=soon)
        )
        if not answer.values or sum(answer.values[each] for each in self._over) > _NONE_OVER:
            return None
        return [
            max(zip(own, variables, strict=True), key=lambda pair: answer.values[pair[1]])[0]
            for own, variables in zip(self._bundles, self._taken, strict=True)
        ]

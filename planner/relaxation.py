"""The linear relaxation over all paths: a bound that nothing beats, and what each GPU is worth.

Without integrality a pool holds exactly the instances its paths keep busy, so a path is one column:
the GPUs of each class that one sample/s keeps busy. Rows are models and classes only, and columns
enter when their price says so (column generation): all paths are priced by one matrix product.

    max z     Σ flow ≥ weight · z,  Σ flow ≥ rate     per model        (dual: `worth` of a sample/s)
              Σ use · flow ≤ count                    per GPU class    (dual: `scarcity` of a GPU)

The `price` of a GPU is its scarcity and what it costs besides: where prices are sought or capped.
Reduced cost of a path = Σ price · use − worth of its model: what one sample/s on it loses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ortools.math_opt.python import mathopt

from penstock.domain.ids import GpuClassName, ModelName
from planner.paths import Floats, Ints, PathTable
from planner.sought import Cheapest, Goodput, MaxMin, Task

_SEEDS = 4  # columns a model starts with, per way of counting GPUs
_ENTERING = 8  # columns a model may add in one round
_TOLERANCE = 1e-9  # relative to the worth of the model
_SHORTFALL = 1e6  # a missing sample/s costs this many times what serving it might


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """The optimum of the relaxation and its duals.

    Attributes:
        bound: no plan has a better value.
        scarcity: worth of one more GPU, by class, in units of the value.
        price: what using a GPU costs, likewise: its scarcity, and its price where that counts.
        worth: of one more sample/s of a model's demand met.
        shortfall: the rates asked for are out of reach even of the relaxation.
    """

    bound: float
    scarcity: Mapping[GpuClassName, float]
    price: Mapping[GpuClassName, float]
    worth: Mapping[ModelName, float]
    shortfall: bool

    def reduced_costs(self, table: PathTable, names: Sequence[GpuClassName]) -> Floats:
        """Return what one sample/s on each path loses against the best there is."""
        prices = np.array([self.price[name] for name in names])
        costs: Floats = table.use @ prices - self.worth[table.model.served.name]
        return costs


def relax(task: Task, tables: Sequence[PathTable]) -> Relaxation | None:
    """Solve the relaxation over every path of every table; None if a model has no path."""
    if any(len(table) == 0 for table in tables):
        return None
    master = _Master(task)
    for number, table in enumerate(tables):
        master.add(number, table, _seeds(table))
    names = [each.name for each in task.gpu_classes]
    found = master.solve()
    entered = True
    while entered:  # ends: every round but the last adds columns, and the bound holds only then
        entered = False
        for number, table in enumerate(tables):
            costs = found.reduced_costs(table, names)
            floor = -_TOLERANCE * max(found.worth[table.model.served.name], 1e-300)
            below = np.flatnonzero(costs < floor)
            best = below[np.argsort(costs[below], kind="stable")[:_ENTERING]]
            entered |= master.add(number, table, best)
        if entered:
            found = master.solve()
    return found


def _seeds(table: PathTable) -> Ints:
    """Return the paths that use least of each class, and least of all together."""
    keys = [table.use[:, each] for each in range(table.use.shape[1])]
    ranks = [np.argsort(key, kind="stable")[:_SEEDS] for key in (*keys, table.use.sum(axis=1))]
    return np.unique(np.concatenate(ranks))


class _Master:
    """The program over the columns that have entered so far."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._program = mathopt.Model(name="relaxation")
        self._entered: list[set[int]] = [set() for _ in task.models]
        add = self._program.add_linear_constraint
        self._serve = [add(lb=0.0) for _ in task.models]
        self._rate = [add(lb=model.rate_rps or 0.0) for model in task.models]
        self._count = {name: add(ub=float(n)) for name, n in task.limits.count.items()}
        cap = task.limits.max_price
        self._price = None if cap is None else add(ub=cap)
        self._missing = [self._add_missing(row) for row in self._rate]
        self._add_goal()

    def _add_missing(self, row: mathopt.LinearConstraint) -> mathopt.Variable:
        """Let a rate go unmet at a price, so that there always is a solution."""
        variable = self._program.add_variable(lb=0.0)
        row.set_coefficient(variable, 1.0)
        return variable

    def _add_goal(self) -> None:
        sign = -1.0 if self._task.maximise else 1.0
        self._program.objective.is_maximize = self._task.maximise
        for variable in self._missing:
            self._program.objective.set_linear_coefficient(variable, sign * _SHORTFALL)
        if not isinstance(self._task.sought, MaxMin):
            return
        z = self._program.add_variable(lb=0.0)
        for model, row in zip(self._task.models, self._serve, strict=True):
            row.set_coefficient(z, -model.weight)
        self._program.objective.set_linear_coefficient(z, 1.0)

    def add(self, number: int, table: PathTable, columns: Ints) -> bool:
        """Let columns of one model enter; tell whether any is new."""
        new = [int(each) for each in columns if int(each) not in self._entered[number]]
        for column in new:
            self._entered[number].add(column)
            self._add_column(number, table.use[column])
        return bool(new)

    def _add_column(self, number: int, use: Floats) -> None:
        task, flow = self._task, self._program.add_variable(lb=0.0)
        self._serve[number].set_coefficient(flow, 1.0)
        self._rate[number].set_coefficient(flow, 1.0)
        cost = 0.0
        for each, busy in zip(task.gpu_classes, use.tolist(), strict=True):
            if busy == 0.0:
                continue
            self._count[each.name].set_coefficient(flow, busy)
            if self._price is not None:
                self._price.set_coefficient(
                    flow, self._price.get_coefficient(flow) + busy * task.limits.price[each.name]
                )
            if isinstance(task.sought, Cheapest):
                cost += busy * task.sought.price[each.name]
        if isinstance(task.sought, Goodput):
            cost = 1.0
        self._program.objective.set_linear_coefficient(flow, cost)

    def solve(self) -> Relaxation:
        result = mathopt.solve(self._program, mathopt.SolverType.GLOP)
        values, duals = result.variable_values(), result.dual_values()
        missing = sum(values[each] for each in self._missing)
        task = self._task
        cap_price = 0.0 if self._price is None else abs(duals[self._price])
        base = task.sought.price if isinstance(task.sought, Cheapest) else {}
        gained = 1.0 if isinstance(task.sought, Goodput) else 0.0
        scarcity = {name: abs(duals[row]) for name, row in self._count.items()}
        return Relaxation(
            bound=result.objective_value(),
            scarcity=scarcity,
            price={
                name: scarce + cap_price * task.limits.price.get(name, 0.0) + base.get(name, 0.0)
                for name, scarce in scarcity.items()
            },
            worth={
                model.name: abs(duals[serve]) + abs(duals[rate]) + gained
                for model, serve, rate in zip(task.models, self._serve, self._rate, strict=True)
            },
            shortfall=missing > 1e-6 * sum(model.rate_rps or 0.0 for model in task.models),
        )

"""The program that takes one bundle of each model, so that the GPUs suffice.

Models meet only at the GPU counts, so it is small: a row per GPU class, a row per model. GPUs cost
their price, even where all that counts is that they suffice: of the hundreds of bundles most are
then seen to cost too much. In the relaxation GPUs may be missing at a higher price, so that it
always has a solution and its duals tell what units are worth.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ortools.math_opt.python import mathopt

from planner.bundles import Bundle, Terms
from planner.paths import Floats
from planner.solve import Job, SolverSettings, run
from planner.sought import Cheapest, Task

_NODES = 10000
_TIME_S = 8.0
_MISSING = 2.0  # a GPU that is missing costs this many times its price,
_NO_GPU = 1e4  # or so many times where the cost is what is sought
_HARDLY = 1e-4  # instances: what a GPU counts where instances are to be kept
_NONE_OVER = 1e-6  # GPUs


class Choice:
    """The program that takes one bundle of each model."""

    def __init__(
        self,
        task: Task,
        terms: Terms,
        bundles: Sequence[Sequence[Bundle]],
    ) -> None:
        """Set it up, seeking the least cost.

        Args:
            task: what is sought.
            terms: prices and units.
            bundles: of each model, one or more.
        """
        self._program = mathopt.Model(name="bundles")
        self._bundles = bundles
        self._per_gpu = terms.per_gpu
        add = self._program.add_variable
        self._gpus = [add(lb=0.0, ub=count) for count in terms.count.tolist()]
        self._over = [add(lb=0.0) for _ in terms.names]
        self._rows = [self._class_row(number) for number in range(len(terms.names))]
        self._taken = [[self._add_bundle(each) for each in own] for own in bundles]
        for own in self._taken:
            row = self._program.add_linear_constraint(lb=1.0, ub=1.0)
            for variable in own:
                row.set_coefficient(variable, 1.0)
        self._priced = isinstance(task.sought, Cheapest)
        for number, name in enumerate(terms.names):
            price = float(terms.price[number])
            cost = task.sought.price[name] if isinstance(task.sought, Cheapest) else price
            missing = price * (_NO_GPU if self._priced else _MISSING)
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

    def keep(self, kept: Sequence[Sequence[int]], most: float) -> None:
        """Seek most kept instances, and fewest GPUs among equals, where it costs no more."""
        program = self._program
        if self._priced:
            for variable in self._over:
                program.objective.set_linear_coefficient(variable, 0.0)
            cost = program.objective.as_linear_expression()
            program.add_linear_constraint(cost <= most)
        program.objective.clear()
        unit = 1 + sum(max(own, default=0) for own in kept)  # worth more than all that is kept
        for variable, parts in zip(self._over, self._per_gpu, strict=True):
            program.objective.set_linear_coefficient(variable, -float(unit * parts))
        for variable in self._gpus:
            program.objective.set_linear_coefficient(variable, -_HARDLY)
        program.objective.is_maximize = True
        for own, variables in zip(kept, self._taken, strict=True):
            for count, variable in zip(own, variables, strict=True):
                program.objective.set_linear_coefficient(variable, float(count))

    def charge(self, kept: Sequence[Sequence[int]], worth: float) -> None:
        """Take so much off the cost for every instance that is kept."""
        for own, variables in zip(kept, self._taken, strict=True):
            for count, variable in zip(own, variables, strict=True):
                self._program.objective.set_linear_coefficient(variable, -worth * count)

    def prices(self) -> Floats:
        """Return what a unit of each class is worth to bundles that need not be whole."""
        duals = mathopt.solve(self._program, mathopt.SolverType.GLOP).dual_values()
        return np.array([abs(duals[row]) for row in self._rows])

    def fits_in_parts(self) -> bool:
        """Tell whether the GPUs suffice for bundles that need not be whole."""
        values = mathopt.solve(self._program, mathopt.SolverType.GLOP).variable_values()
        return bool(sum(values[each] for each in self._over) <= _NONE_OVER)

    def whole(self, settings: SolverSettings) -> list[Bundle] | None:
        """Return a bundle of each model that fit together; None if none were found."""
        for variable in self._over:
            variable.upper_bound = 0.0
        for own in self._taken:
            for variable in own:
                variable.integer = True
        for variable in self._gpus if self._priced else ():
            variable.integer = True
        soon = min(settings.deadline, time.perf_counter() + _TIME_S)
        answer = run(
            Job(program=self._program, node_limit=_NODES), replace(settings, deadline=soon)
        )
        if not answer.values:
            return None
        return [
            max(zip(own, variables, strict=True), key=lambda pair: answer.values[pair[1]])[0]
            for own, variables in zip(self._bundles, self._taken, strict=True)
        ]

"""Other prices of GPUs, at which what models take does not fit into the fleet.

The prices of the relaxation know nothing of whole instances. At these, the cheapest that each model
can do with may be too much of one class and too little of another: no proof that models do not fit
together, as they cost no more than the fleet. Prices a little higher for the class that is short
make one of it, unless a model then takes something else; that joins what is known, and so on: the
cutting planes of Kelley (1960) for the Lagrangian dual, with the least step each time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ortools.math_opt.python import mathopt

from planner.paths import Floats

_OVER = 2e-4  # of the fleet's worth: what is known to be taken must cost so much more than it
_LEAST = 0.1  # of its price: what a GPU costs still


def tilted(prices: Floats, count: Floats, taken: Sequence[Sequence[Floats]]) -> Floats | None:
    """Return the prices nearest to these at which models cannot do with the fleet's worth.

    None if there are none: parts of what models took fit together.

    Args:
        prices: of a GPU, per class; the fleet is worth 1.
        count: GPUs there are, per class.
        taken: by each model, GPUs per class; of what it took before, it takes the cheapest.
    """
    program = mathopt.Model(name="tilt")
    price = [program.add_variable(lb=_LEAST * each) for each in prices.tolist()]
    moved = [program.add_variable(lb=0.0) for _ in price]
    for each, old, step in zip(price, prices.tolist(), moved, strict=True):
        program.add_linear_constraint(each - step <= old)
        program.add_linear_constraint(each + step >= old)
    program.add_linear_constraint(_cost(price, count) == 1.0)
    costs = [program.add_variable(lb=0.0) for _ in taken]
    for cost, own in zip(costs, taken, strict=True):
        for gpus in own:
            program.add_linear_constraint(cost <= _cost(price, gpus))
    program.add_linear_constraint(mathopt.fast_sum(costs) >= 1.0 + _OVER)
    program.minimize(_cost(moved, count))
    result = mathopt.solve(program, mathopt.SolverType.GLOP)
    if not result.has_primal_feasible_solution():
        return None
    values = result.variable_values()
    return np.array([values[each] for each in price])


def _cost(price: Sequence[mathopt.Variable], gpus: Floats) -> mathopt.LinearSum:
    return mathopt.fast_sum(
        each * number for each, number in zip(price, gpus.tolist(), strict=True)
    )

"""One model's program, put as what it wastes: the least priced GPUs that carry a demand.

What GPUs cost is what a perfect fit would cost, `worth · demand`, and what is lost against that:

    Σ price · idle[pool] / m + Σ reduced cost · flow[path] (+ Σ price · hole[group])  ≤  waste
    Σ load · flow + idle[pool] = n[pool]

Little may be wasted, so this one row bounds every flow, every idle part and every n, and solvers
propagate it. Said as a limit on the cost it comes to the same, and they see none of it: refuting a
target took up to four times as long.

Knows nothing of other models.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ortools.math_opt.python import mathopt

from penstock.domain.ids import GpuClassName
from planner.candidates import CandidatePath, CandidatePool
from planner.formulation import Group, Variable, add_exclusion, group_of
from planner.sought import Task

_HAIR = 1e-9  # relative: room for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is to be carried, and what may be lost.

    Attributes:
        price: of a GPU, by class.
        per_gpu: units a GPU of each class is counted in.
        worth: of a sample/s: no path costs less.
        demand: samples/s.
        waste: that is allowed.
    """

    price: Mapping[GpuClassName, float]
    per_gpu: Mapping[GpuClassName, int]
    worth: float
    demand: float
    waste: float


class WasteProgram:
    """The program of one model.

    Attributes:
        program: seeks the least cost; its value is in `scale` times the unit of the prices.
        n: instances.
        units: of GPUs in use, by class; their upper bounds may be set.
    """

    def __init__(self, task: Task, paths: Sequence[CandidatePath], terms: Terms) -> None:
        self.program = mathopt.Model(name="waste")
        self._task, self._terms = task, terms
        # In GPUs of middling price: tolerances of solvers are absolute.
        self.scale = len(terms.price) / sum(terms.price.values())
        self._waste = self.program.add_linear_constraint(ub=terms.waste * self.scale)
        self.program.objective.offset = terms.worth * terms.demand * self.scale
        self.program.objective.is_maximize = False
        flow = {path: self._add_flow(path) for path in paths}
        self.n: dict[CandidatePool, Variable] = {}
        self._add_pools(flow)
        if task.exclusive:
            add_exclusion(self.program, task, self.n)
        self.units = {name: self._add_units(name) for name in terms.price}

    def _charge(self, variable: Variable, cost: float) -> None:
        """Count what a variable wastes."""
        if cost > 0:
            self._waste.set_coefficient(variable, cost * self.scale)
            self.program.objective.set_linear_coefficient(variable, cost * self.scale)

    def _add_flow(self, path: CandidatePath) -> Variable:
        terms = self._terms
        cost = sum(
            path.load(position) / pool.m * terms.price[pool.gpu_class.name]
            for position, pool in enumerate(path.pools)
        )
        lost = max(0.0, cost - terms.worth)
        most = terms.demand
        if lost * most > terms.waste:
            most = terms.waste / lost * (1 + _HAIR)
        variable = self.program.add_variable(lb=0.0, ub=most)
        self._charge(variable, lost)
        return variable

    def _add_pools(self, flow: Mapping[CandidatePath, Variable]) -> None:
        """Add instances, and idle parts of them, that together are as many as flows keep busy."""
        through: defaultdict[CandidatePool, list[tuple[Variable, float]]] = defaultdict(list)
        for path, variable in flow.items():
            for position, pool in enumerate(path.pools):
                through[pool].append((variable, path.load(position)))
        carried = self.program.add_linear_constraint(lb=self._terms.demand, ub=self._terms.demand)
        for variable in flow.values():
            carried.set_coefficient(variable, 1.0)
        for pool, loads in through.items():
            self._add_pool(pool, loads)

    def _add_pool(self, pool: CandidatePool, loads: Sequence[tuple[Variable, float]]) -> None:
        name = pool.gpu_class.name
        price = self._terms.price[name] / pool.m
        idle = self.program.add_variable(lb=0.0, ub=self._terms.waste / price * (1 + _HAIR))
        busy = sum(min(self._terms.demand, each.upper_bound) * load for each, load in loads)
        most = min(busy + idle.upper_bound, float(self._task.limits.count[name] * pool.m))
        self.n[pool] = self.program.add_variable(
            lb=0.0, ub=float(math.floor(most * (1 + _HAIR) + _HAIR)), is_integer=True
        )
        row = self.program.add_linear_constraint(lb=0.0, ub=0.0)
        row.set_coefficient(self.n[pool], -1.0)
        row.set_coefficient(idle, 1.0)
        for variable, load in loads:
            row.set_coefficient(variable, load)
        self._charge(idle, price)

    def _add_units(self, name: GpuClassName) -> Variable:
        """Return the units that the class's instances take: the sum over its groups."""
        per_gpu = self._terms.per_gpu[name]
        units = self.program.add_variable(
            lb=0.0, ub=float(self._task.limits.count[name] * per_gpu), is_integer=True
        )
        total = self.program.add_linear_constraint(lb=0.0, ub=0.0)
        total.set_coefficient(units, -1.0)
        groups: defaultdict[Group, list[CandidatePool]] = defaultdict(list)
        for pool in self.n:
            if pool.gpu_class.name == name:
                groups[group_of(pool, self._task)].append(pool)
        for pools in groups.values():
            if self._task.packing == "per-stage":
                total.set_coefficient(self._rounded(name, pools), float(per_gpu))
            else:
                for pool in pools:
                    total.set_coefficient(self.n[pool], float(per_gpu // pool.m))
        return units

    def _rounded(self, name: GpuClassName, pools: Sequence[CandidatePool]) -> Variable:
        """Return the GPUs that the instances of one group take; what is left of them is lost."""
        gpus = self.program.add_variable(
            lb=0.0, ub=float(self._task.limits.count[name]), is_integer=True
        )
        hole = self.program.add_variable(lb=0.0)
        common = math.lcm(*(pool.m for pool in pools))
        row = self.program.add_linear_constraint(lb=0.0, ub=0.0)
        row.set_coefficient(gpus, -float(common))
        row.set_coefficient(hole, float(common))
        for pool in pools:
            row.set_coefficient(self.n[pool], float(common // pool.m))
        self._charge(hole, self._terms.price[name])
        return gpus

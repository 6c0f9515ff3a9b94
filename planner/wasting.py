"""Programs put as what they waste: the least priced GPUs that carry the demand of some models.

What GPUs cost is what a perfect fit would cost, `worth · demand`, and what is lost against that:

    least ≤ Σ price · idle[pool] / m + Σ reduced cost · flow[path] (+ Σ price · hole[group]) ≤ most
    Σ load · flow + idle[pool] = n[pool]

Little may be wasted, so this one row per model bounds every flow, every idle part and every n, and
solvers propagate it. Said as a limit on the cost it comes to the same, and they see none of it:
refuting a target took up to four times as long. Models meet in what all may waste and in the GPUs.
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
_NEARLY = 1e-6  # GPUs: solvers keep to rows with this tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How GPUs are counted, and what they cost.

    Attributes:
        price: of a GPU, by class.
        per_gpu: units a GPU of each class is counted in.
    """

    price: Mapping[GpuClassName, float]
    per_gpu: Mapping[GpuClassName, int]

    @property
    def scale(self) -> float:
        """What prices are multiplied with: tolerances of solvers are absolute.

        Costs are then in GPUs of middling price.
        """
        return len(self.price) / sum(self.price.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one model is to be given, and what that may waste.

    Attributes:
        paths: that may be used.
        worth: of a sample/s: no path costs less.
        samples_rps: to be carried.
        least, most: that is wasted.
    """

    paths: Sequence[CandidatePath]
    worth: float
    samples_rps: float
    least: float
    most: float


class WasteProgram:
    """The program of some models.

    Attributes:
        program: seeks the least cost; its value is in `terms.scale` times the unit of the prices.
        n: instances.
    """

    def __init__(
        self,
        task: Task,
        terms: Terms,
        demands: Sequence[Demand],
        most: float,
        units: Mapping[GpuClassName, int] | None = None,
    ) -> None:
        """Set it up.

        Args:
            task: how many GPUs there are, and how they may be shared.
            terms: how they are counted, and what they cost.
            demands: of each model.
            most: that all may waste together.
            units: of each class that may be taken; None: all there are.
        """
        self.program = mathopt.Model(name="waste")
        self.n: dict[CandidatePool, Variable] = {}
        self._task, self._terms = task, terms
        self._wasted = self.program.add_linear_constraint(ub=most * terms.scale)
        self._units = {
            name: self.program.add_linear_constraint(ub=float(count))
            for name, count in (units or self._all_units()).items()
        }
        self.program.objective.is_maximize = False
        self.program.objective.offset = terms.scale * sum(
            each.worth * each.samples_rps for each in demands
        )
        for each in demands:
            _Part(self, task, terms, each)
        if task.exclusive:
            add_exclusion(self.program, task, self.n)

    def _all_units(self) -> dict[GpuClassName, int]:
        count = self._task.limits.count
        return {name: count[name] * per_gpu for name, per_gpu in self._terms.per_gpu.items()}

    def charge(self, variable: Variable, cost: float) -> None:
        """Count what a variable wastes."""
        self._wasted.set_coefficient(variable, cost)
        self.program.objective.set_linear_coefficient(variable, cost)

    def take(self, name: GpuClassName, variable: Variable, units: int) -> None:
        """Count the units that one of a variable takes."""
        self._units[name].set_coefficient(variable, float(units))


class _Part:
    """One model's part of a program."""

    def __init__(self, whole: WasteProgram, task: Task, terms: Terms, demand: Demand) -> None:
        self._whole, self._task, self._terms, self._demand = whole, task, terms, demand
        self._program = whole.program
        self._wasted = self._program.add_linear_constraint(
            lb=demand.least * terms.scale - _NEARLY, ub=demand.most * terms.scale
        )
        flow = {path: self._add_flow(path) for path in demand.paths}
        self._n: dict[CandidatePool, Variable] = {}
        self._add_pools(flow)
        self._add_groups()
        whole.n |= self._n

    def _charge(self, variable: Variable, cost: float) -> None:
        if cost > 0:
            self._wasted.set_coefficient(variable, cost * self._terms.scale)
            self._whole.charge(variable, cost * self._terms.scale)

    def _add_flow(self, path: CandidatePath) -> Variable:
        demand = self._demand
        cost = sum(
            path.load(position) / pool.m * self._terms.price[pool.gpu_class.name]
            for position, pool in enumerate(path.pools)
        )
        lost = max(0.0, cost - demand.worth)
        most = demand.samples_rps
        if lost * most > demand.most:
            most = demand.most / lost * (1 + _HAIR)
        variable = self._program.add_variable(lb=0.0, ub=most)
        self._charge(variable, lost)
        return variable

    def _add_pools(self, flow: Mapping[CandidatePath, Variable]) -> None:
        """Add instances, and idle parts of them, that together are as many as flows keep busy."""
        through: defaultdict[CandidatePool, list[tuple[Variable, float]]] = defaultdict(list)
        for path, variable in flow.items():
            for position, pool in enumerate(path.pools):
                through[pool].append((variable, path.load(position)))
        asked = self._demand.samples_rps
        carried = self._program.add_linear_constraint(lb=asked, ub=asked)
        for variable in flow.values():
            carried.set_coefficient(variable, 1.0)
        for pool, loads in through.items():
            self._add_pool(pool, loads)

    def _add_pool(self, pool: CandidatePool, loads: Sequence[tuple[Variable, float]]) -> None:
        demand, name = self._demand, pool.gpu_class.name
        price = self._terms.price[name] / pool.m
        idle = self._program.add_variable(lb=0.0, ub=demand.most / price * (1 + _HAIR))
        busy = sum(min(demand.samples_rps, each.upper_bound) * load for each, load in loads)
        most = min(busy + idle.upper_bound, float(self._task.limits.count[name] * pool.m))
        self._n[pool] = self._program.add_variable(
            lb=0.0, ub=float(math.floor(most * (1 + _HAIR) + _HAIR)), is_integer=True
        )
        row = self._program.add_linear_constraint(lb=0.0, ub=0.0)
        row.set_coefficient(self._n[pool], -1.0)
        row.set_coefficient(idle, 1.0)
        for variable, load in loads:
            row.set_coefficient(variable, load)
        self._charge(idle, price)

    def _add_groups(self) -> None:
        """Count the units that instances take: pool by pool, or rounded up to GPUs by group."""
        groups: defaultdict[Group, list[CandidatePool]] = defaultdict(list)
        for pool in self._n:
            groups[group_of(pool, self._task)].append(pool)
        for group, pools in groups.items():
            name = group[0]
            per_gpu = self._terms.per_gpu[name]
            if self._task.packing == "per-stage":
                self._whole.take(name, self._rounded(name, pools), per_gpu)
            else:
                for pool in pools:
                    self._whole.take(name, self._n[pool], per_gpu // pool.m)

    def _rounded(self, name: GpuClassName, pools: Sequence[CandidatePool]) -> Variable:
        """Return the GPUs that the instances of one group take; what is left of them is lost."""
        gpus = self._program.add_variable(
            lb=0.0, ub=float(self._task.limits.count[name]), is_integer=True
        )
        hole = self._program.add_variable(lb=0.0)
        common = math.lcm(*(pool.m for pool in pools))
        row = self._program.add_linear_constraint(lb=0.0, ub=0.0)
        row.set_coefficient(gpus, -float(common))
        row.set_coefficient(hole, float(common))
        for pool in pools:
            row.set_coefficient(self._n[pool], float(common // pool.m))
        self._charge(hole, self._terms.price[name])
        return gpus

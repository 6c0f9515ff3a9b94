"""Model by model: proving that no plan is better, or finding the one that is.

Models meet only at the GPU counts, so the question "can every model have z times its weight?" falls
apart into one program per model: the least priced GPUs that carry its flow. With the prices of
the relaxation, let v be a model's least share of all that the fleet is worth.

* If the shares sum to more than 1, z is out of reach: a Lagrangian bound that knows what whole
  instances cost each model, where the relaxation rounds nothing.
* If the GPUs of the cheapest answers fit together, z is reached.
* Else some class is overdrawn, so in any plan some model has less of it than in these answers: one
  branch per model, with that model's GPUs of the class capped one unit lower.

Each program is asked once per model and cap, whatever branch it is met in. Branches end when their
shares sum to more than 1. Between two targets z is guessed from the sum of the shares, which grows
about as z does. The scheme is Lagrangian decomposition with branching on the coupling constraint.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from penstock.domain.ids import GpuClassName
from planner.candidates import CandidatePool
from planner.formulation import Formulation, Problem, Variable, formulate
from planner.relaxation import Relaxation
from planner.solution import Instances, counts, gpus_used
from planner.solve import Answer, Job, SolverSettings, run_all
from planner.sought import Cheapest

_CLOSE = 5e-3  # relative gap of a model's least share
_ANY = 2e-2  # under caps any answer within the room will do: what counts is whether there is one
_ROOM = 1e-7  # shares are compared with this tolerance

Caps: TypeAlias = tuple[int, ...]  # most units of each class, in class order


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a target.

    Attributes:
        reached: instances that reach it; None if there are none, or the time was up.
        refuted: proven out of reach.
        shares: what the models need at the least, as a part of the fleet's worth.
    """

    reached: Instances | None = None
    refuted: bool = False
    shares: float = 0.0


@dataclass(frozen=True, slots=True)
class _Least:
    """The cheapest answer of one model under caps; `units` is None if there is none."""

    share: float
    units: Caps | None
    instances: Instances
    proven: bool = True


class TargetSearch:
    """Asks whether targets can be reached.

    Args:
        problem: max-min, two or more models.
        relaxation: of the problem; prices and worth.
        settings: solver and deadline.

    Attributes:
        price: of a GPU of each class, as a part of the fleet's worth.
        found: pools that any answer used.
    """

    def __init__(self, problem: Problem, relaxation: Relaxation, settings: SolverSettings) -> None:
        self._problem = problem
        self._settings = settings
        task = problem.task
        self._names = [each.name for each in task.gpu_classes]
        price = relaxation.price
        fleet = sum(price[name] * task.limits.count[name] for name in self._names)
        # A class that is not scarce still costs a little, so that answers do not waste it.
        least = 1e-4 * fleet / max(1, sum(task.limits.count.values()))
        priced = {name: max(price[name], least) for name in self._names}
        whole = sum(priced[name] * task.limits.count[name] for name in self._names)
        self.price = {name: each / whole for name, each in priced.items()}
        self._worth = {name: each / whole for name, each in relaxation.worth.items()}
        self._unit = {name: self._units_per_gpu(name) for name in self._names}
        self.found: Counter[CandidatePool] = Counter()

    def _units_per_gpu(self, name: GpuClassName) -> int:
        """Return the parts a GPU of the class is counted in: models may share one, or not."""
        if self._problem.task.packing == "per-stage":
            return 1
        pools = self._problem.pools()
        return math.lcm(*(pool.m for pool in pools if pool.gpu_class.name == name), 1)

    def decide(self, target: float) -> Verdict:
        """Decide whether every model can have `target` times its weight."""
        models = [_OneModel(self, number, target) for number in range(self._models())]
        count = self._problem.task.limits.count
        full = tuple(count[name] * self._unit[name] for name in self._names)
        base = self._ask(models, [full] * len(models), self._first_rooms(target), _CLOSE)
        shares = sum(each.share for each in base)
        if shares > 1 + _ROOM:
            return Verdict(refuted=True, shares=shares)
        if not all(each.proven for each in base):
            return Verdict(shares=shares)
        rooms = [1 - shares + each.share + _ROOM for each in base]
        verdict = self._branch(models, full, rooms, shares)
        return replace(verdict, shares=shares)

    def demand(self, number: int, target: float) -> float:
        """Return the samples/s that a model has to be given."""
        model = self._problem.task.models[number]
        return max(model.weight * target, model.rate_rps or 0.0)

    def _first_rooms(self, target: float) -> list[float]:
        """Return what each model may cost at most, the others as cheap as the relaxation has it."""
        names = [model.name for model in self._problem.task.models]
        least = [
            self._worth[name] * self.demand(number, target) for number, name in enumerate(names)
        ]
        return [1 - sum(least) + own + _ROOM for own in least]

    def _models(self) -> int:
        return len(self._problem.task.models)

    def _branch(
        self, models: Sequence[_OneModel], full: Caps, rooms: Sequence[float], shares: float
    ) -> Verdict:
        root = (full,) * len(models)
        heap, seen = [(shares, root)], {root}
        while heap:
            if self._settings.left_s <= 0:
                return Verdict()
            _, caps = heapq.heappop(heap)
            answers = self._ask(models, caps, rooms, _ANY)
            if sum(each.share for each in answers) > 1 + _ROOM:
                continue
            if not all(each.proven for each in answers):
                return Verdict()
            overdrawn = self._overdrawn(answers)
            if overdrawn is None:
                return self._together(answers)
            for number, answer in enumerate(answers):
                units = answer.units
                if units is None or units[overdrawn] == 0:
                    continue
                lower = list(caps[number])
                lower[overdrawn] = units[overdrawn] - 1
                branch = (*caps[:number], tuple(lower), *caps[number + 1 :])
                if branch not in seen:
                    seen.add(branch)
                    known = [
                        model.known(cap, each.share)
                        for model, cap, each in zip(models, branch, answers, strict=True)
                    ]
                    heapq.heappush(heap, (sum(known), branch))
        return Verdict(refuted=True)

    def _ask(
        self,
        models: Sequence[_OneModel],
        caps: Sequence[Caps],
        rooms: Sequence[float],
        relative_gap: float,
    ) -> list[_Least]:
        """Return each model's cheapest answer; those not known yet are solved side by side."""
        asked = [
            (model, cap, room)
            for model, cap, room in zip(models, caps, rooms, strict=True)
            if cap not in model.answers
        ]
        settings = replace(self._settings, relative_gap=relative_gap)
        jobs = [model.job(cap, room) for model, cap, room in asked]
        for (model, cap, _), answer in zip(
            asked, run_all(jobs, settings) if jobs else [], strict=True
        ):
            if answer.interrupted:
                raise KeyboardInterrupt
            model.take(cap, answer)
            self.found.update(model.answers[cap].instances)
        return [model.answers[cap] for model, cap in zip(models, caps, strict=True)]

    def _overdrawn(self, answers: Sequence[_Least]) -> int | None:
        """Return the class that is short of most GPUs; None if all fit."""
        limits = self._problem.task.limits.count
        over = []
        for index, name in enumerate(self._names):
            units = sum(each.units[index] for each in answers if each.units is not None)
            over.append(units / self._unit[name] - limits[name])
        worst = max(range(len(over)), key=over.__getitem__)
        return worst if over[worst] > 0 else None

    def _together(self, answers: Sequence[_Least]) -> Verdict:
        """Return the answers as one; nothing is decided if they leave holes in the GPUs."""
        instances = {pool: n for answer in answers for pool, n in answer.instances.items()}
        task = self._problem.task
        used = gpus_used(task, instances)
        fits = all(used[name] <= task.limits.count[name] for name in self._names)
        return Verdict(reached=instances) if fits else Verdict()

    def program(self, number: int, target: float) -> tuple[Formulation, dict[int, Variable]]:
        """Return one model's program and its variables of units, by class index."""
        task = self._problem.task
        model = task.models[number]
        demand = self.demand(number, target)
        own = replace(
            task,
            models=(replace(model, rate_rps=demand),),
            sought=Cheapest(self.price, whole=False),
        )
        paths = tuple(path for path in self._problem.paths if path.model == model.name)
        formulation = formulate(Problem(task=own, paths=paths))
        # No more than the demand: a flow with an upper bound lets solvers round instances up.
        formulation.rate[model.name].upper_bound = demand
        for variable in formulation.flow.values():
            variable.upper_bound = demand
        units = {}
        for index, name in enumerate(self._names):
            units[index] = _counted(formulation, name, self._unit[name])
        return formulation, units


def _counted(formulation: Formulation, name: GpuClassName, per_gpu: int) -> Variable:
    """Return a whole number of units that the class's GPUs come to: solvers round it up."""
    program = formulation.program
    units = program.add_variable(lb=0.0, is_integer=True)
    row = program.add_linear_constraint(lb=0.0, ub=0.0)
    row.set_coefficient(units, 1.0)
    row.set_coefficient(formulation.gpus[name], -float(per_gpu))
    return units


class _OneModel:
    """One model's program at one target, and the answers it gave."""

    def __init__(self, search: TargetSearch, number: int, target: float) -> None:
        self._search = search
        self._formulation, self._units = search.program(number, target)
        self._room = self._formulation.program.add_linear_constraint(ub=1.0)
        for name, variable in self._formulation.gpus.items():
            self._room.set_coefficient(variable, search.price[name])
        self.answers: dict[Caps, _Least] = {}

    def job(self, caps: Caps, room: float) -> Job:
        for index, most in enumerate(caps):
            self._units[index].upper_bound = float(most)
        self._room.upper_bound = room
        return Job(program=self._formulation.program)

    def known(self, caps: Caps, otherwise: float) -> float:
        """Return the least share under caps; if not asked yet, what it is known to exceed."""
        return self.answers[caps].share if caps in self.answers else otherwise

    def take(self, caps: Caps, answer: Answer) -> None:
        """Remember an answer."""
        if answer.none:
            self.answers[caps] = _Least(math.inf, None, {})
        elif not answer.values:
            least = answer.bound if math.isfinite(answer.bound) else 0.0
            self.answers[caps] = _Least(least, None, {}, proven=False)
        else:
            units = tuple(round(answer.values[self._units[i]]) for i in range(len(caps)))
            self.answers[caps] = _Least(
                max(0.0, answer.bound), units, counts(self._formulation, answer.values)
            )

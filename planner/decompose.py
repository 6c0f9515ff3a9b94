"""Model by model: proving that no plan is better, or finding the one that is.

Models meet only at the GPU counts, so the question "can every model have z times its weight?" falls
apart into one program per model: the least priced GPUs that carry its flow. With the prices of
the relaxation, let v be a model's least share of all that the fleet is worth.

* If the shares sum to more than 1, z is out of reach: a Lagrangian bound that knows what whole
  instances cost each model, where the relaxation rounds nothing.
* If the GPUs of the cheapest answers fit together, z is reached.
* Else some class is overdrawn, so in any plan some model has less of it than in these answers: one
  branch per model, with that model's GPUs of the class capped one unit lower.

A program holds only what may matter where so little is left to waste (`planner.fixing`), and says
so to the solver (`planner.wasting`). The models with most paths come last: by then the others have
told how much room they leave. Each program is asked once per model and cap, whatever branch it is
met in. Branches end when their shares sum to more than 1. Between two targets z is guessed from the
sum of the shares, which grows about as z does. The scheme is Lagrangian decomposition with
branching on the coupling constraint.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.candidates import CandidatePool
from planner.fixing import surviving
from planner.paths import Ints, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances, gpus_used
from planner.solve import Answer, Job, SolverSettings, run_all
from planner.sought import Task
from planner.wasting import Terms, WasteProgram

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
        task: max-min.
        tables: paths of each model.
        closed: (paths,) per model, those that are not to be used.
        relaxation: of them; prices and worth.
        settings: solver and deadline.

    Attributes:
        price: of a GPU of each class, as a part of the fleet's worth.
        near: (rows of each model's table) the paths that mattered to the last target.
        found: pools that any answer used.
    """

    def __init__(
        self,
        task: Task,
        tables: Sequence[PathTable],
        closed: Sequence[NDArray[np.bool_]],
        relaxation: Relaxation,
        settings: SolverSettings,
    ) -> None:
        self._task, self._tables = task, tables
        self._settings = settings
        self._names = [each.name for each in task.gpu_classes]
        price = relaxation.price
        fleet = sum(price[name] * task.limits.count[name] for name in self._names)
        # A class that is not scarce still costs a little, so that answers do not waste it.
        least = 1e-4 * fleet / max(1, sum(task.limits.count.values()))
        priced = {name: max(price[name], least) for name in self._names}
        whole = sum(priced[name] * task.limits.count[name] for name in self._names)
        self.price = {name: each / whole for name, each in priced.items()}
        self._worth = [relaxation.worth[model.name] / whole for model in task.models]
        prices = np.array([self.price[name] for name in self._names])
        self._prices = prices
        self._costs = [
            np.where(out, np.inf, table.use @ prices - worth)
            for table, out, worth in zip(tables, closed, self._worth, strict=True)
        ]
        self._per_gpu = {name: self._units_per_gpu(at) for at, name in enumerate(self._names)}
        self.near: list[Ints] = [np.arange(0) for _ in tables]
        self.found: Counter[CandidatePool] = Counter()

    def _units_per_gpu(self, gpu_class: int) -> int:
        """Return the parts a GPU of the class is counted in: models may share one, or not."""
        if self._task.packing == "per-stage":
            return 1
        return math.lcm(*(table.denominator(gpu_class) for table in self._tables))

    def decide(self, target: float) -> Verdict:
        """Decide whether every model can have `target` times its weight."""
        models = [_OneModel(self, number, target) for number in range(len(self._tables))]
        count = self._task.limits.count
        full = tuple(count[name] * self._per_gpu[name] for name in self._names)
        base = self._cheapest(models, full)
        shares = sum(each.share for each in base)
        if shares > 1 + _ROOM:
            return Verdict(refuted=True, shares=shares)
        if not all(each.proven for each in base):
            return Verdict(shares=shares)
        for model, each in zip(models, base, strict=True):
            model.narrow(1 - shares + each.share + _ROOM)
        return replace(self._branch(models, full, shares), shares=shares)

    def size(self, target: float) -> int:
        """Return how many paths matter to a target."""
        least = [
            each.worth * each.demand
            for each in (self.terms(n, target) for n in range(len(self._tables)))
        ]
        waste = max(0.0, 1 - sum(least) + _ROOM)
        return sum(len(self.surviving(number, waste)) for number in range(len(least)))

    def _cheapest(self, models: Sequence[_OneModel], full: Caps) -> list[_Least]:
        """Return each model's cheapest answer: first the easy ones, which leave less to the others.

        They end where no room is left.
        """
        shares = [model.least for model in models]
        for model in models:
            model.narrow(1 - sum(shares) + model.least + _ROOM)
        self.near = [model.rows for model in models]
        order = sorted(models, key=lambda model: len(model.rows))
        for at, lot in enumerate((order[:-1], order[-1:])):
            if at and len(models) > 1:
                room = 1 - sum(shares) + lot[0].least + _ROOM
                lot[0].narrow(room)
            self._ask(lot, [full] * len(lot), _CLOSE)
            for number, model in enumerate(models):
                shares[number] = model.known(full, model.least)
            if sum(shares) > 1 + _ROOM:
                break
        return [model.answers.get(full, _Least(model.least, None, {}, False)) for model in models]

    def _branch(self, models: Sequence[_OneModel], full: Caps, shares: float) -> Verdict:
        root = (full,) * len(models)
        heap, seen = [(shares, root)], {root}
        while heap:
            if self._settings.left_s <= 0:
                return Verdict()
            _, caps = heapq.heappop(heap)
            answers = self._ask(models, caps, _ANY)
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
        self, models: Sequence[_OneModel], caps: Sequence[Caps], relative_gap: float
    ) -> list[_Least]:
        """Return each model's cheapest answer; those not known yet are solved side by side."""
        asked = [
            (model, cap)
            for model, cap in zip(models, caps, strict=True)
            if cap not in model.answers
        ]
        settings = replace(self._settings, relative_gap=relative_gap)
        jobs = [model.job(cap) for model, cap in asked]
        for (model, cap), answer in zip(
            asked, run_all(jobs, settings) if jobs else [], strict=True
        ):
            if answer.interrupted:
                raise KeyboardInterrupt
            model.take(cap, answer)
            self.found.update(model.answers[cap].instances)
        return [model.answers[cap] for model, cap in zip(models, caps, strict=True)]

    def _overdrawn(self, answers: Sequence[_Least]) -> int | None:
        """Return the class that is short of most GPUs; None if all fit."""
        limits = self._task.limits.count
        over = []
        for index, name in enumerate(self._names):
            units = sum(each.units[index] for each in answers if each.units is not None)
            over.append(units / self._per_gpu[name] - limits[name])
        worst = max(range(len(over)), key=over.__getitem__)
        return worst if over[worst] > 0 else None

    def _together(self, answers: Sequence[_Least]) -> Verdict:
        """Return the answers as one; nothing is decided if they leave holes in the GPUs."""
        instances = {pool: n for answer in answers for pool, n in answer.instances.items()}
        used = gpus_used(self._task, instances)
        fits = all(used[name] <= self._task.limits.count[name] for name in self._names)
        return Verdict(reached=instances) if fits else Verdict()

    def terms(self, number: int, target: float) -> Terms:
        """Return what a model has to be given, with nothing to waste."""
        model = self._task.models[number]
        return Terms(
            price=self.price,
            per_gpu=self._per_gpu,
            worth=self._worth[number],
            demand=max(model.weight * target, model.rate_rps or 0.0),
            waste=0.0,
        )

    def surviving(self, number: int, waste: float) -> Ints:
        """Return the paths of a model that may be used where so much may be wasted."""
        return surviving(self._tables[number], self._costs[number], self._prices, waste)

    def program(self, number: int, rows: Ints, terms: Terms) -> WasteProgram:
        """Return one model's program over some of its paths."""
        paths = self._tables[number].candidates(rows)
        return WasteProgram(self._task, paths, terms)


class _OneModel:
    """One model's program at one target, and the answers it gave.

    Attributes:
        least: share of the fleet's worth that it takes even if nothing is wasted.
        rows: paths that matter.
        answers: by caps.
    """

    def __init__(self, search: TargetSearch, number: int, target: float) -> None:
        self._search, self._number = search, number
        self._terms = search.terms(number, target)
        self.least = self._terms.worth * self._terms.demand
        self.rows: Ints = np.arange(0)
        self._program: WasteProgram | None = None
        self.answers: dict[Caps, _Least] = {}

    def narrow(self, room: float) -> None:
        """Leave so much room for the model: what costs more is of no account."""
        self._terms = replace(self._terms, waste=max(0.0, room - self.least))
        self.rows = self._search.surviving(self._number, self._terms.waste)
        self._program = None

    def job(self, caps: Caps) -> Job:
        if self._program is None:
            self._program = self._search.program(self._number, self.rows, self._terms)
        for units, most in zip(self._program.units.values(), caps, strict=True):
            units.upper_bound = float(most)
        return Job(program=self._program.program)

    def known(self, caps: Caps, otherwise: float) -> float:
        """Return the least share under caps; if not asked yet, what it is known to exceed."""
        return self.answers[caps].share if caps in self.answers else otherwise

    def take(self, caps: Caps, answer: Answer) -> None:
        """Remember an answer."""
        program = self._program
        if answer.none or program is None:
            self.answers[caps] = _Least(math.inf, None, {})
            return
        least = answer.bound / program.scale if math.isfinite(answer.bound) else 0.0
        least = max(self.least, least)
        if not answer.values:
            self.answers[caps] = _Least(least, None, {}, proven=False)
            return
        units = tuple(round(answer.values[each]) for each in program.units.values())
        n = {pool: round(answer.values[each]) for pool, each in program.n.items()}
        self.answers[caps] = _Least(least, units, {pool: k for pool, k in n.items() if k > 0})

"""Model by model: proving that no plan is better, or finding the one that is.

Models meet only at the GPU counts, so the question "can every model have z times its weight?"
nearly falls apart into one program per model: the least priced GPUs that carry its flow. At the
prices of the relaxation the fleet is worth a little more than what models need with nothing wasted.
That little is what all may waste.

* What each model wastes at the least is found from below: may it waste an eighth of what there is,
  a quarter, and so on? So little waste leaves few paths (`planner.fixing`), and the program says so
  to the solver (`planner.wasting`): most steps are refuted in no time. The model with the fewest
  paths goes a step at a time, so that those with many are asked last, with what the others leave.
* If models waste more at the least than all may, z is out of reach: a Lagrangian bound that knows
  what whole instances cost each model, where the relaxation rounds nothing.
* If the GPUs of the cheapest answers fit together, z is reached.
* Else some class is overdrawn. At a higher price of it there may be no room for waste
  (`planner.tilting`).
* Else models have little room beside what each must waste. One program for all of them, over the
  few paths that lose no more, tells whether they fit together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.domain.cluster import ServedModel
from planner.candidates import CandidatePool
from planner.least_waste import Cheapest, Market, ModelWaste
from planner.paths import Floats, Ints, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances, gpus_used
from planner.solve import Job, SolverSettings, run
from planner.sought import Task
from planner.tilting import tilted
from planner.wasting import Terms, WasteProgram

_STEPS = 8  # from no waste to all that there may be
_MARKETS = 4  # prices that a target is looked at with
_ROOM = 1e-7  # of the fleet's worth: shares are compared with this tolerance,
_HAIR = 1e-12  # and what is left of it after rounding with this one


@dataclass(frozen=True, slots=True)
class _Effort:
    """How exactly a program is solved, and for how long: nodes of its tree; None: any number."""

    relative_gap: float
    nodes: int | None


# Of one of many models: waste is a hundredth of its cost. What is known when the nodes are used up
# will do at other prices.
_EACH = _Effort(relative_gap=1e-4, nodes=4_000)
# Where what counts is whether there is an answer, any will do.
_LONE = _Effort(relative_gap=2e-2, nodes=None)
_JOINT = _Effort(relative_gap=2e-2, nodes=20_000)  # other targets may be easier


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a target.

    Attributes:
        reached: instances that reach it; None if there are none, or nothing was decided.
        refuted: proven out of reach.
        shares: what the models need at the least, as a part of the fleet's worth.
    """

    reached: Instances | None = None
    refuted: bool = False
    shares: float = 0.0


class TargetSearch:
    """Asks whether targets can be reached.

    Args:
        task: max-min.
        tables: paths of each model.
        closed: (paths,) per model, those that are not to be used.
        relaxation: of them; prices and worth.
        settings: solver and deadline.

    Attributes:
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
        self._task, self._tables, self._closed = task, tables, closed
        self._settings = settings
        self._names = [each.name for each in task.gpu_classes]
        self._count = np.array([float(task.limits.count[name]) for name in self._names])
        self._per_gpu = {name: self._units_per_gpu(at) for at, name in enumerate(self._names)}
        price = np.array([relaxation.price[name] for name in self._names])
        # A class that is not scarce still costs a little, so that answers do not waste it.
        least = 1e-4 * float(price @ self._count) / max(1.0, float(self._count.sum()))
        priced = np.maximum(price, least)
        self._market = self._priced(priced / float(priced @ self._count))
        self.near: list[Ints] = [np.arange(0) for _ in tables]
        self.found: Counter[CandidatePool] = Counter()

    def _priced(self, prices: Floats) -> Market:
        """Return what paths cost where GPUs do; the fleet is worth 1."""
        cost = [
            np.where(out, np.inf, table.use @ prices)
            for table, out in zip(self._tables, self._closed, strict=True)
        ]
        return Market(
            prices=prices,
            worth=[float(each.min()) for each in cost],
            lost=[each - each.min() for each in cost],
            terms=Terms(
                price=dict(zip(self._names, prices.tolist(), strict=True)), per_gpu=self._per_gpu
            ),
        )

    def _units_per_gpu(self, gpu_class: int) -> int:
        """Return the parts a GPU of the class is counted in: models may share one, or not."""
        if self._task.packing == "per-stage":
            return 1
        return math.lcm(*(table.denominator(gpu_class) for table in self._tables))

    def decide(self, target: float) -> Verdict:
        """Decide whether every model can have `target` times its weight."""
        market, best = self._market, None
        taken: list[list[Floats]] = [[] for _ in self._tables]
        for _ in range(_MARKETS):
            models, room = self._apart(target, market)
            self.near = [each.rows for each in models]
            if room <= _HAIR:
                return Verdict(refuted=True, shares=1 - room)
            if best is None or room < best[2]:
                best = market, models, room
            if not all(each.instances for each in models):
                break
            instances = {pool: n for each in models for pool, n in each.instances.items()}
            if self._fits(instances):
                return Verdict(reached=instances, shares=1 - room)
            for own, each in zip(taken, models, strict=True):
                own.append(self._gpus(each.instances))
            prices = tilted(self._market.prices, self._count, taken)
            if prices is None:
                break
            market = self._priced(prices)
        return Verdict() if best is None else self._together(*best)

    def _apart(self, target: float, market: Market) -> tuple[list[ModelWaste], float]:
        """Return what each model wastes at the least, and what room that leaves; none: refuted.

        Of a model that is too hard only a part of that is known.
        """
        models = self._models(target, market)
        room = _room(models)
        step = room / _STEPS if len(models) > 1 else room  # a single one has all of it anyhow
        while room > _HAIR:
            unsure = [each for each in models if not each.sure and not each.hard]
            if not unsure:
                break
            for each in unsure:
                each.look(min(step, room))
            easiest = min(unsure, key=lambda each: len(each.rows))
            effort = _EACH if len(models) > 1 else _LONE
            room -= easiest.learn(self._solve([easiest], easiest.most, market, effort))
        return models, room

    def _together(self, market: Market, models: Sequence[ModelWaste], room: float) -> Verdict:
        """Decide whether models fit together that may waste so much more than each must."""
        for each in models:
            each.look(room)
        self.near = [each.rows for each in models]
        most = room + sum(each.least for each in models)
        answer = self._solve(models, most, market, _JOINT)
        if answer.finished and not answer.instances:
            return Verdict(refuted=True, shares=1 - room)
        fits = self._fits(answer.instances)
        return Verdict(reached=answer.instances if fits else None, shares=1 - room)

    def size(self, target: float) -> int:
        """Return how many paths matter to a target."""
        models = self._models(target, self._market)
        room = max(0.0, _room(models))
        for each in models:
            each.look(room)
        return sum(len(each.rows) for each in models)

    def _models(self, target: float, market: Market) -> list[ModelWaste]:
        return [
            ModelWaste(table, market.prices, lost, worth, _samples_rps(model, target))
            for model, table, lost, worth in zip(
                self._task.models, self._tables, market.lost, market.worth, strict=True
            )
        ]

    def _gpus(self, instances: Instances) -> Floats:
        """Return the GPUs of each class that instances pay for."""
        if self._task.packing == "per-stage":
            used = gpus_used(self._task, instances)
            return np.array([float(used[name]) for name in self._names])
        at = {name: number for number, name in enumerate(self._names)}
        paid = np.zeros(len(at))
        for pool, n in instances.items():
            paid[at[pool.gpu_class.name]] += n / pool.m
        return paid

    def _solve(
        self, models: Sequence[ModelWaste], most: float, market: Market, effort: _Effort
    ) -> Cheapest:
        """Return the cheapest instances of some models, each over the paths last looked at."""
        if not all(len(each.rows) for each in models):
            return Cheapest({}, math.inf, finished=True)
        demands = [each.demand() for each in models]
        program = WasteProgram(self._task, market.terms, demands, most)
        settings = replace(self._settings, relative_gap=effort.relative_gap)
        answer = run(Job(program=program.program, node_limit=effort.nodes), settings)
        if answer.interrupted:
            raise KeyboardInterrupt
        rounded = {pool: round(answer.values[n]) for pool, n in program.n.items() if answer.values}
        instances = {pool: n for pool, n in rounded.items() if n > 0}
        self.found.update(instances)
        perfect = sum(each.worth * each.samples_rps for each in models)
        return Cheapest(
            instances, answer.bound / market.terms.scale - perfect, finished=answer.finished
        )

    def _fits(self, instances: Instances) -> bool:
        """Tell whether there are instances, and GPUs for them: parts of GPUs may leave holes."""
        used = gpus_used(self._task, instances)
        count = self._task.limits.count
        return bool(instances) and all(used[name] <= count[name] for name in used)


def _samples_rps(model: ServedModel, target: float) -> float:
    return max(model.weight * target, model.rate_rps or 0.0)


def _room(models: Sequence[ModelWaste]) -> float:
    """Return what all models together may waste."""
    return 1 + _ROOM - sum(each.worth * each.samples_rps for each in models)

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
* Else models have little room beside what each must waste. Where classes are few, so are the ways
  to divide the fleet that leave each model what it needs, and they decide (`planner.dividing`).
* Else some class is overdrawn. At a higher price of it there may be no room for waste
  (`planner.tilting`).
* Else one program for all models, over the few paths that lose no more, tells whether they fit
  together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.domain.cluster import ServedModel
from planner.dividing import Division, Known, ways_to_take
from planner.least_waste import Cheapest, Market, ModelWaste
from planner.paths import Floats, Ints, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances
from planner.solve import SolverSettings
from planner.sought import Task
from planner.tilting import tilted
from planner.waste_solver import Effort, WasteSolver

_STEPS = 8  # from no waste to all that there may be
_MARKETS = 4  # prices that a target is looked at with
_FEW_CLASSES = 2  # the fleet is divided among models where there are no more,
_WAYS = 4_000  # and no more ways for each to take units,
_MANY = 120  # paths: what a model of more wastes need not be known then
_OTHER_PRICES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.4, 1.7, 2, 3, 5, 10)
_ROOM = 1e-7  # of the fleet's worth: shares are compared with this tolerance,
_HAIR = 1e-12  # and what is left of it after rounding with this one

# Of one of many models: waste is a hundredth of its cost. What is known when the nodes are used up
# will do; where the fleet is divided then, a little is enough.
_EACH, _ROUGHLY = Effort(relative_gap=1e-4, nodes=4_000), Effort(relative_gap=1e-4, nodes=200)
# Where what counts is whether there is an answer, any will do.
_LONE = Effort(relative_gap=2e-2, nodes=None)
_WAY = Effort(relative_gap=2e-2, nodes=5_000)
_JOINT = Effort(relative_gap=2e-2, nodes=20_000)  # other targets may be easier


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
        solver: of programs; `found` are the pools that any answer used.
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
        self.solver = WasteSolver(task, tables, settings)
        count = self.solver.count
        price = np.array([relaxation.price[each.name] for each in task.gpu_classes])
        # A class that is not scarce still costs a little, so that answers do not waste it.
        least = 1e-4 * float(price @ count) / max(1.0, float(count.sum()))
        priced = np.maximum(price, least)
        self._market = self._priced(priced / float(priced @ count))
        self._few_classes = len(tables) > 1 and 1 < len(count) <= _FEW_CLASSES
        self._known = [Known() for _ in tables]
        self.near: list[Ints] = [np.arange(0) for _ in tables]

    def _priced(self, prices: Floats) -> Market:
        """Return what paths cost where GPUs do; the fleet is worth 1."""
        cost = [self._costs(at, prices) for at in range(len(self._tables))]
        return Market(
            prices=prices,
            worth=[float(each.min()) for each in cost],
            lost=[each - each.min() for each in cost],
            terms=self.solver.terms(prices),
        )

    def _costs(self, model: int, prices: Floats) -> Floats:
        """Return what a sample/s costs on each path of a model; infinite: not to be used."""
        return np.where(self._closed[model], np.inf, self._tables[model].use @ prices)

    def decide(self, target: float) -> Verdict:
        """Decide whether every model can have `target` times its weight."""
        market, best = self._market, None
        taken: list[list[Floats]] = [[] for _ in self._tables]
        roughly = self._few_classes
        for _ in range(_MARKETS):
            models, room = self._apart(target, market, roughly=roughly)
            self.near = [each.rows for each in models]
            if room <= _HAIR:
                return Verdict(refuted=True, shares=1 - room)
            if best is None or room < best[2]:
                best = market, models, room
            answered = all(each.instances for each in models)
            instances = {pool: n for each in models for pool, n in each.instances.items()}
            if answered and self.solver.fits(instances):
                return Verdict(reached=instances, shares=1 - room)
            divided = self._divided(market, models, room)
            if divided is not None:
                return divided
            if roughly:  # too many ways: know more of each model instead
                roughly = False
                continue
            if not answered:
                break
            for own, each in zip(taken, models, strict=True):
                own.append(self.solver.gpus(each.instances))
            prices = tilted(self._market.prices, self.solver.count, taken)
            if prices is None:
                break
            market = self._priced(prices)
        return Verdict() if best is None else self._together(*best)

    def _apart(
        self, target: float, market: Market, *, roughly: bool
    ) -> tuple[list[ModelWaste], float]:
        """Return what each model wastes at the least, and what room that leaves; none: refuted.

        Of a model that is too hard only a part of that is known.
        """
        models = self._models(target, market)
        room = _room(models)
        step = room / _STEPS if len(models) > 1 else room  # a single one has all of it anyhow
        effort, many = (_ROUGHLY, _MANY) if roughly else (_EACH, math.inf)
        if len(models) == 1:
            effort = _LONE
        while room > _HAIR:
            unsure = [each for each in models if not each.sure and not each.hard]
            for each in unsure:
                each.look(min(step, room))
            easiest = min(unsure, key=lambda each: len(each.rows), default=None)
            if easiest is None or len(easiest.rows) > many:
                break
            room -= easiest.learn(self.solver.solve([easiest], easiest.most, market, effort))
        return models, room

    def _divided(self, market: Market, models: Sequence[ModelWaste], room: float) -> Verdict | None:
        """Decide by the ways to divide the fleet; None if there are too many."""
        if not self._few_classes:
            return None
        ways = [self._ways(at, market, each, room) for at, each in enumerate(models)]
        few = [each for each in ways if each is not None]
        if len(few) < len(models):
            return None

        def ask(at: int, way: Ints) -> Cheapest:
            model, known = models[at], self._known[at]
            answer = known.recall(model.samples_rps, way)
            if answer is None:
                answer = self.solver.within(model, way, market, _WAY)
                known.learn(model.samples_rps, way, answer)
            return answer

        units = self.solver.count.astype(int) * self.solver.per_gpu
        order = sorted(range(len(models)), key=lambda at: len(models[at].rows))
        divided = Division(units, few, ask).decide(order)
        if divided.refuted:
            return Verdict(refuted=True, shares=1 - room)
        fits = self.solver.fits(divided.instances)
        return Verdict(reached=divided.instances if fits else None, shares=1 - room)

    def _ways(self, at: int, market: Market, model: ModelWaste, room: float) -> Ints | None:
        """Return the units of each class that a model may take; None if there are too many ways.

        Those that cannot pay for it at other prices are not among them.
        """
        per_gpu = self.solver.per_gpu
        units = self.solver.count.astype(int) * per_gpu
        least = model.perfect + model.least
        ways = ways_to_take(market.prices / per_gpu, units, least, least + room, _WAYS)
        if ways is None:
            return None
        for factor in _OTHER_PRICES:
            for gpu_class in range(len(per_gpu)):
                prices = market.prices.copy()
                prices[gpu_class] *= factor
                needed = float(self._costs(at, prices).min()) * model.samples_rps
                ways = ways[ways @ (prices / per_gpu) >= needed * (1 - _ROOM)]
        return ways

    def _together(self, market: Market, models: Sequence[ModelWaste], room: float) -> Verdict:
        """Decide whether models fit together that may waste so much more than each must."""
        for each in models:
            each.look(room)
        self.near = [each.rows for each in models]
        most = room + sum(each.least for each in models)
        answer = self.solver.solve(models, most, market, _JOINT)
        if answer.finished and not answer.instances:
            return Verdict(refuted=True, shares=1 - room)
        fits = self.solver.fits(answer.instances)
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


def _samples_rps(model: ServedModel, target: float) -> float:
    return max(model.weight * target, model.rate_rps or 0.0)


def _room(models: Sequence[ModelWaste]) -> float:
    """Return what all models together may waste."""
    return 1 + _ROOM - sum(each.perfect for each in models)

"""From bundles of single models to instances of all: one bundle each, so that the GPUs suffice.

The linear relaxation of that choice (`planner.choice`) tells what the GPUs are worth to whole
bundles; the paths' relaxation knows only parts of instances. Bundles that are cheap at these prices
join in: column generation. Prices shaken at random add others, so that the last, whole-number
choice has something to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from planner.bundles import Bundle, Cover, Items, Terms, Units, instances_of, list_items
from planner.candidates import CandidatePath, CandidatePool
from planner.choice import Choice
from planner.formulation import Problem
from planner.paths import Floats, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances
from planner.solve import SolverSettings
from planner.sought import Cheapest, Task

_SHAKEN = 6  # searches at prices shaken at random
_SPREAD = 0.05  # of the logarithm of shaken prices
_PRICED = 10  # searches at the prices of bundles, at most
_OLD = 0.5  # how much of the old prices stays in the new ones: they swing less
_LEAST = 0.3  # of its price: a class that bundles have in plenty costs this much still

Assembled: TypeAlias = tuple[Problem, Instances]  # instances, and the paths through them


class Assembler:
    """Finds instances that carry every model's demand.

    Attributes:
        task: what is sought.
        tables: paths of each model.
        terms: how GPUs are counted, and the prices that the relaxation gives them.
        costs: reduced costs of each model's paths.
    """

    def __init__(
        self,
        task: Task,
        tables: Sequence[PathTable],
        relaxation: Relaxation,
    ) -> None:
        self.task = task
        self.tables = tables
        self.terms = _terms(task, tables, relaxation)
        self.costs = [relaxation.reduced_costs(table, self.terms.names) for table in tables]
        self._items = [self._list(number, relaxation) for number in range(len(tables))]

    def _list(self, number: int, relaxation: Relaxation) -> Items:
        table = self.tables[number]
        worth = relaxation.worth[table.model.served.name]
        demand = self.demand(number, relaxation.bound)
        return list_items(table, self.costs[number], worth, demand, self.terms)

    def demand(self, number: int, target: float) -> float:
        """Return the samples/s that a model has to be given."""
        model = self.task.models[number]
        if isinstance(self.task.sought, Cheapest):
            return model.rate_rps or 0.0
        return max(model.weight * target, model.rate_rps or 0.0)

    def share(self, target: float) -> float:
        """Return the part of the fleet that the cheapest bundles take; infinite if one has none."""
        prices = self.terms.unit_prices
        found = [self._cheapest(number, target, prices) for number in range(len(self._items))]
        if not all(found):
            return math.inf
        units = sum(np.array(bundles[0].units) for bundles in found)
        return float(units @ prices / (self.terms.price @ self.terms.count))

    def fit(
        self,
        target: float,
        settings: SolverSettings,
        more: Sequence[Sequence[Bundle]] = (),
    ) -> Assembled | None:
        """Return instances that carry `target` times every weight, and the paths through them.

        None if no bundles were found that fit together: which proves nothing.

        Args:
            target: times every weight; of no account where rates are given.
            settings: solver and deadline.
            more: bundles of each model that carry it, beside those that are looked for.
        """
        bundles = self.gather(target, settings)
        for own, others in zip(bundles, more, strict=False):
            own.extend(others)
        if not all(bundles) or settings.left_s <= 0:
            return None
        chosen = self.choice(bundles).whole(settings)
        return None if chosen is None else self.whole(chosen)

    def choice(self, bundles: Sequence[Sequence[Bundle]]) -> Choice:
        """Return the program that takes one of each model's bundles."""
        return Choice(self.task, self.terms, bundles)

    def whole(self, chosen: Sequence[Bundle]) -> Assembled:
        """Return the instances of one bundle per model, and the paths through them."""
        paths: list[CandidatePath] = []
        instances: dict[CandidatePool, int] = {}
        for table, bundle in zip(self.tables, chosen, strict=True):
            instances |= instances_of(table, bundle.flows)
            paths += table.candidates(table.within(np.array([path for path, _ in bundle.flows])))
        return Problem(task=self.task, paths=tuple(paths)), instances

    def gather(self, target: float, settings: SolverSettings) -> list[list[Bundle]]:
        """Return bundles of each model that carry a target and are cheap at many prices."""
        found: list[dict[Units, Bundle]] = [{} for _ in self._items]
        rng = np.random.default_rng(settings.seed)
        for number in range(_SHAKEN):
            shaken = np.exp(rng.normal(0.0, _SPREAD, len(self.terms.names))) if number else 1.0
            self._join(found, target, self.terms.unit_prices * shaken)
        prices = self.terms.unit_prices
        for _ in range(_PRICED):
            if not all(found) or settings.left_s <= 0:
                break
            scarcity = self.choice([list(own.values()) for own in found]).prices()
            least = _LEAST * self.terms.unit_prices
            prices = _OLD * prices + (1 - _OLD) * np.maximum(scarcity, least)
            if not self._join(found, target, prices):
                break
        return [list(own.values()) for own in found]

    def _join(self, found: Sequence[dict[Units, Bundle]], target: float, prices: Floats) -> bool:
        """Add bundles that are cheap at these prices; tell whether any is new."""
        before = sum(map(len, found))
        for number, known in enumerate(found):
            for bundle in self._cheapest(number, target, prices):
                known.setdefault(bundle.units, bundle)
        return sum(map(len, found)) > before

    def _cheapest(self, number: int, target: float, unit_prices: Floats) -> list[Bundle]:
        return Cover(self._items[number], unit_prices, self.demand(number, target)).bundles()


def _terms(task: Task, tables: Sequence[PathTable], relaxation: Relaxation) -> Terms:
    names = tuple(each.name for each in task.gpu_classes)
    dearest = max(relaxation.price.values()) or 1.0
    shared = task.packing != "per-stage"
    return Terms(
        names=names,
        count=np.array([task.limits.count[name] for name in names], dtype=float),
        # What nobody is short of still costs a little, so that it is not wasted.
        price=np.maximum([relaxation.price[name] for name in names], 1e-3 * dearest),
        per_gpu=tuple(
            math.lcm(*(table.denominator(number) for table in tables)) if shared else 1
            for number in range(len(names))
        ),
    )

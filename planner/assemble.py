"""From bundles of single models to instances of all: one bundle each, so that the GPUs suffice.

The linear relaxation of that choice (`planner.choice`) tells what the GPUs are worth to whole
bundles; the paths' relaxation knows only parts of instances. Bundles that are cheap at these prices
join in: column generation. Prices shaken at random add others, so that the last, whole-number
choice has something to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from planner.beam import Beam
from planner.bundles import Bundle, Cover, Items, Terms, Units, instances_of, list_items
from planner.candidates import CandidatePath, CandidatePool
from planner.choice import Choice
from planner.formulation import Problem
from planner.paths import Floats, PathTable
from planner.relaxation import Relaxation
from planner.solution import Instances
from planner.solve import SolverSettings
from planner.sought import Cheapest, Task
from planner.threads import side_by_side

_SHAKEN = 6  # searches at prices shaken at random
_SPREAD = 0.05  # of the logarithm of shaken prices
_PRICED = 10  # searches at the prices of bundles, at most
_SHARED = 6  # searches for bundles whose paths share pools, at most
_FIRST_SHARED = 2  # of them before the first choice
_OLD = 0.5  # how much of the old prices stays in the new ones: they swing less

_LEAST = 0.3  # of its price: a class that bundles have in plenty costs this much still

Assembled: TypeAlias = tuple[Problem, Instances]  # instances, and the paths through them
Known: TypeAlias = dict[Units, Bundle]  # of one model
Search: TypeAlias = Callable[[int, float, Floats], list[Bundle]]  # of a model: target, prices


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
        self._items = side_by_side(lambda number: self._list(number, relaxation), len(tables))

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
        found = [self._apart(number, target, prices) for number in range(len(self._items))]
        if not all(found):
            return math.inf
        units = sum(np.array(bundles[0].units) for bundles in found)
        return float(units @ prices / (self.terms.price @ self.terms.count))

    def fit(
        self,
        target: float,
        settings: SolverSettings,
        *,
        sharing: bool = False,
    ) -> Assembled | None:
        """Return instances that carry `target` times every weight, and the paths through them.

        None if no bundles were found that fit together: which proves nothing.

        Args:
            target: times every weight; of no account where rates are given.
            settings: solver and deadline.
            sharing: look for bundles whose paths share pools, too; they waste less.
        """
        found = self._gathered(target, settings)
        lots = self._with_sharing(found, target, settings) if sharing else iter([found])
        for lot in lots:
            if not all(lot) or settings.left_s <= 0:
                return None
            chosen = self._choice_of(lot).whole(settings)
            if chosen is not None:
                return self.whole(chosen)
        return None

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
        return [list(own.values()) for own in self._gathered(target, settings)]

    def _gathered(self, target: float, settings: SolverSettings) -> list[Known]:
        found: list[Known] = [{} for _ in self._items]
        rng = np.random.default_rng(settings.seed)
        for number in range(_SHAKEN):
            shaken = self.terms.unit_prices * self._shaken(rng, number)
            self._join(found, self._apart, target, shaken, settings)
        prices = self.terms.unit_prices
        for _ in range(_PRICED):
            if not all(found) or settings.left_s <= 0:
                break
            prices = _OLD * prices + (1 - _OLD) * self._worth(self._choice_of(found))
            if not self._join(found, self._apart, target, prices, settings):
                break
        return found

    def _with_sharing(
        self, found: list[Known], target: float, settings: SolverSettings
    ) -> Iterator[list[Known]]:
        """Yield more and more bundles, of paths that share pools, too, while parts of them fit."""
        rng = np.random.default_rng(settings.seed)
        for number in range(_SHARED):
            if not all(found) or settings.left_s <= 0:
                return
            choice = self._choice_of(found)
            if number >= _FIRST_SHARED:
                if not choice.fits_in_parts():
                    return
                yield found
            shaken = self._worth(choice) * self._shaken(rng, number)
            self._join(found, self._sharing, target, shaken, settings)
        yield found

    def _shaken(self, rng: np.random.Generator, number: int) -> Floats:
        """Return what to multiply prices with to shake them at random; the first time, don't."""
        spread = _SPREAD if number else 0.0
        return np.exp(rng.normal(0.0, spread, len(self.terms.names)))

    def _worth(self, choice: Choice) -> Floats:
        """Return what units are worth to bundles; never nothing, or they would be wasted."""
        return np.maximum(choice.prices(), _LEAST * self.terms.unit_prices)

    def _choice_of(self, found: Sequence[Known]) -> Choice:
        return self.choice([list(own.values()) for own in found])

    def _join(
        self,
        found: Sequence[Known],
        search: Search,
        target: float,
        prices: Floats,
        settings: SolverSettings,
    ) -> bool:
        """Add bundles that are cheap at these prices; tell whether any is new."""
        before = sum(map(len, found))

        def searched(number: int) -> list[Bundle]:
            return search(number, target, prices) if settings.left_s > 0 else []

        joining = side_by_side(searched, len(found))
        for known, bundles in zip(found, joining, strict=True):
            for bundle in bundles:
                known.setdefault(bundle.units, bundle)
        return sum(map(len, found)) > before

    def _cover(self, number: int, target: float, unit_prices: Floats) -> Cover:
        return Cover(self._items[number], unit_prices, self.demand(number, target))

    def covering(self, number: int, flow_rps: float, unit_prices: Floats) -> list[Bundle]:
        """Return bundles of one model that carry so many samples/s, cheap at these prices."""
        return Cover(self._items[number], unit_prices, flow_rps).bundles()

    def _apart(self, number: int, target: float, unit_prices: Floats) -> list[Bundle]:
        """Return bundles of paths with pools of their own."""
        return self._cover(number, target, unit_prices).bundles()

    def _sharing(self, number: int, target: float, unit_prices: Floats) -> list[Bundle]:
        """Return bundles of paths that share pools."""
        cover = self._cover(number, target, unit_prices)
        demand = self.demand(number, target)
        return Beam(self.tables[number], cover, self.terms, unit_prices, demand).bundles()


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

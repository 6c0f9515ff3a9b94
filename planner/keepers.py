"""Keepers: bundles that hold on to instances that run already, and the choice that keeps most.

Where a cost is sought, the cheapest choice comes first for which lost instances cost something,
too: what runs is so near the best that this finds it sooner than a search that knows nothing of it.
Then, with the value fixed, column generation, with kept instances as the currency. A small program
of each model (`planner.charged`) finds the bundle for which lost instances and GPUs together cost
least; a choice of one bundle per model keeps most of all; its relaxation tells how many kept
instances a GPU of each class is worth, and at these prices the programs are asked again. Programs
are slow, so each bundle that matters brings its neighbours (`planner.refills`) for the choice to
choose from.

What is done is counted in rounds and nodes: results depend on the machine only where the deadline
comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from planner.assemble import Assembled, Assembler
from planner.bundles import Bundle, Flows, Units, bundle_of, instances_of
from planner.candidates import CandidatePath
from planner.charged import Charged
from planner.choice import Choice
from planner.paths import Floats
from planner.refills import refills
from planner.replan import Running, kept_instances
from planner.solve import SolverSettings
from planner.threads import side_by_side

_STAYING = ((0, 1.0), (6, 0.1), (6, 0.03))  # paths near what runs; GPUs that a lost one costs
_TRADING = (6, 6, 12)  # paths near what runs, round by round
_REFILLED = 4, 2  # times in each round that the choice is made: staying, trading
_PROMISING = 3  # bundles of each model that bring neighbours, besides those chosen
_MOST = 100  # bundles of a model to choose from
_OLD = 0.5  # how much of the old prices stays in the new ones: they swing less
_SPARE_S = 0.15  # that the last choice needs: nothing else begins in it
_LEAST = 0.3  # of what a GPU costs on average: a class that is in plenty costs this much still


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """A bundle, and how many running instances it keeps."""

    bundle: Bundle
    kept: int


Lots: TypeAlias = list[list[Keeping]]  # of each model
Seek: TypeAlias = Callable[[Choice, list[list[int]]], None]  # instances kept, bundle by bundle


class Keepers:
    """Finds instances as good as others that keep more of those that run.

    Attributes:
        running: instances that run already.
    """

    def __init__(self, assembler: Assembler, running: Running, settings: SolverSettings) -> None:
        """Get ready.

        Args:
            assembler: its task, paths and bundles.
            running: instances that run already, one at least.
            settings: solver and deadline.
        """
        self.running = running
        self._assembler = assembler
        self._tables, self._terms = assembler.tables, assembler.terms
        self._settings = settings
        fleet = float(self._terms.price @ self._terms.count)
        self._instance = fleet / sum(running.values())
        self._gpu = fleet / float(self._terms.count.sum())
        self._prices = self._terms.unit_prices / self._instance  # in kept instances
        self._sure: Lots = [[] for _ in self._tables]  # that fit together
        self._lots: Lots = [[] for _ in self._tables]
        self._seen: set[tuple[int, Flows]] = set()

    def stays(self) -> Iterator[Assembled]:
        """Yield instances that carry the rates asked for: GPUs and losses together cost least."""
        self._lots = self._gathered(0.0)
        for near, lost in _STAYING:
            worth = lost * self._gpu
            self._prices = self._terms.unit_prices / worth
            yield from self._round(0.0, near, partial(Choice.charge, worth=worth), _REFILLED[0])

    def trades(self, value: float, known: Mapping[CandidatePath, float]) -> Iterator[Assembled]:
        """Yield instances that reach a value and keep most, from more and more bundles.

        Args:
            value: times every weight, or the cost, as the objective has it.
            known: flows of a solution that reaches it, so that nothing that keeps less comes back.
        """
        self._sure = self._known(known)
        if not any(self._lots):
            self._lots = self._gathered(value)
        self._prices = self._terms.unit_prices / self._instance

        def keep(choice: Choice, kept: list[list[int]]) -> None:
            choice.keep(kept, value)
            self._prices = _OLD * self._prices + (1 - _OLD) * self._worth(choice)

        for near in _TRADING:
            yield from self._round(value, near, keep, _REFILLED[1])

    def _round(self, value: float, near: int, seek: Seek, times: int) -> Iterator[Assembled]:
        """Yield what the choice finds among new bundles and, again and again, their neighbours."""
        if self._settings.left_s <= _SPARE_S:
            return
        fresh = self._charged(value, near)
        for number in range(times):
            new = self._unseen(fresh)
            if self._settings.left_s <= 0 or (number > 0 and not any(new)):
                return
            lots = _together(self._lots, fresh, self._refilled(value, new))
            self._lots = [self._thinned(*pair) for pair in zip(self._sure, lots, strict=True)]
            chosen = self._choose(seek)
            if chosen is not None:
                yield self._assembler.whole([each.bundle for each in chosen])
            fresh = self._promising(chosen)

    def _known(self, known: Mapping[CandidatePath, float]) -> Lots:
        flows = [table.flows(known) for table in self._tables]
        return [[self._keeping(number, own)] if own else [] for number, own in enumerate(flows)]

    def _gathered(self, value: float) -> Lots:
        gathered = self._assembler.gather(value, self._settings)
        return [[self._weighed(n, each) for each in own] for n, own in enumerate(gathered)]

    def _charged(self, target: float, near: int) -> Lots:
        """Return the cheapest bundle of each model, or none, where a lost instance costs 1."""
        settings = replace(self._settings, deadline=self._settings.deadline - _SPARE_S)
        charged = Charged(self._assembler, self.running, target, self._prices, near)
        found = enumerate(charged.flows(settings))
        return [[self._keeping(number, flows)] if flows else [] for number, flows in found]

    def _keeping(self, number: int, flows: Flows) -> Keeping:
        return self._weighed(number, bundle_of(self._tables[number], flows, self._terms))

    def _weighed(self, number: int, bundle: Bundle) -> Keeping:
        instances = instances_of(self._tables[number], bundle.flows)
        return Keeping(bundle=bundle, kept=kept_instances(instances, self.running))

    def _unseen(self, lots: Lots) -> list[list[Bundle]]:
        """Return the bundles whose neighbours have not been looked for yet."""
        new = [
            [each.bundle for each in own if (number, each.bundle.flows) not in self._seen]
            for number, own in enumerate(lots)
        ]
        self._seen.update((number, each.flows) for number, own in enumerate(new) for each in own)
        return new

    def _refilled(self, value: float, new: Sequence[Sequence[Bundle]]) -> Lots:
        """Return the neighbours of bundles."""

        def neighbours(number: int) -> list[Keeping]:
            return [
                self._weighed(number, each)
                for bundle in new[number]
                if self._settings.left_s > _SPARE_S
                for each in refills(self._assembler, number, bundle, value, self._prices)
            ]

        return side_by_side(neighbours, len(new))

    def _choose(self, seek: Seek) -> list[Keeping] | None:
        """Return the bundle of each model that together are best, if some fit."""
        bundles = [[each.bundle for each in own] for own in self._lots]
        choice = self._assembler.choice(bundles)
        seek(choice, [[each.kept for each in own] for own in self._lots])
        chosen = choice.whole(self._settings)
        if chosen is None:
            return None
        places = [own.index(each) for own, each in zip(bundles, chosen, strict=True)]
        return [own[at] for own, at in zip(self._lots, places, strict=True)]

    def _worth(self, choice: Choice) -> Floats:
        """Return how many kept instances a unit of each class is worth; never none."""
        worth = choice.prices()
        units = self._terms.count * np.array(self._terms.per_gpu)
        mean = float(worth @ units) / float(self._terms.unit_prices @ units)
        return np.maximum(worth, _LEAST * mean * self._terms.unit_prices)

    def _promising(self, chosen: Sequence[Keeping] | None) -> Lots:
        """Return the bundles chosen, and those that cost least at the prices."""
        best = [sorted(own, key=self._cost)[:_PROMISING] for own in self._lots]
        if chosen is None:
            return best
        return [[*own, each] for own, each in zip(best, chosen, strict=True)]

    def _thinned(self, sure: Sequence[Keeping], keepings: Sequence[Keeping]) -> list[Keeping]:
        """Return those that are sure to fit, and those that cost least.

        Of those that take the same, only one that keeps most.
        """
        most: dict[Units, Keeping] = {}
        for each in keepings:
            known = most.get(each.bundle.units)
            if known is None or each.kept > known.kept:
                most[each.bundle.units] = each
        return [*sure, *sorted(most.values(), key=self._cost)[:_MOST]]

    def _cost(self, keeping: Keeping) -> float:
        """Return what a bundle takes, less what it keeps."""
        return float(np.array(keeping.bundle.units) @ self._prices) - keeping.kept


def _together(*lots: Lots) -> Lots:
    return [[each for lot in own for each in lot] for own in zip(*lots, strict=True)]

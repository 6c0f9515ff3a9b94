"""Keepers: bundles that hold on to instances that run already, and the choice that keeps most.

Column generation, with kept instances as the currency. A small program of each model finds the
bundle for which lost instances and GPUs together cost least; a choice of one bundle per model keeps
most of all; its relaxation tells how many kept instances a GPU of each class is worth, and at these
prices the programs are asked again. Programs are slow, so they see few paths, and each bundle that
matters brings its neighbours (`planner.refills`) for the choice to choose from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from planner.assemble import Assembled, Assembler
from planner.bundles import Bundle, Flows, Units, bundle_of, instances_of
from planner.candidates import CandidatePath
from planner.formulation import Formulation, Problem, formulate
from planner.paths import Floats, Ints
from planner.refills import refills
from planner.replan import Running, charge_lost, kept_instances
from planner.solve import Job, SolverSettings, run_all
from planner.sought import Cheapest
from planner.threads import side_by_side

_CHEAP = 0.3  # what losing an instance costs, as a part of what an instance costs on average
_PATHS = (6, 6, 12, 12)  # of which a stage runs, and as many that lose least, round by round
_NODES = 200
_TIME_S = 0.4  # for a program of every model
_GAP = 0.02  # of these programs
_REFILLED = 2  # times in each round that the choice is made
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


class Keepers:
    """Finds instances as good as others that keep more of those that run."""

    def __init__(self, assembler: Assembler, running: Running, settings: SolverSettings) -> None:
        """Get ready.

        Args:
            assembler: its task, paths and bundles.
            running: instances that run already, one at least.
            settings: solver and deadline.
        """
        self._assembler = assembler
        self._task, self._tables = assembler.task, assembler.tables
        self._terms = assembler.terms
        self._running = running
        self._settings = settings
        self._instance = float(self._terms.price @ self._terms.count) / sum(running.values())

    def cheap(self, target: float) -> list[list[Bundle]]:
        """Return a bundle of each model, or none, that keeps what is nearly as good as another."""
        prices = self._terms.unit_prices / (_CHEAP * self._instance)
        return [[each.bundle for each in own] for own in self._charged(target, prices, _PATHS[0])]

    def trades(self, value: float, known: Mapping[CandidatePath, float]) -> Iterator[Assembled]:
        """Yield instances that reach a value and keep most, from more and more bundles.

        Args:
            value: times every weight, or the cost, as the objective has it.
            known: flows of a solution that reaches it, so that nothing that keeps less comes back.
        """
        first = self._known(known)
        lots = _together(first, self._gathered(value))
        prices = self._terms.unit_prices / self._instance
        seen: set[tuple[int, Flows]] = set()
        for near in _PATHS:
            if self._settings.left_s <= _SPARE_S:
                return
            fresh = self._charged(value, prices, near)
            for _ in range(_REFILLED):
                if self._settings.left_s <= 0:
                    return
                lots = _together(lots, fresh, self._refilled(value, fresh, prices, seen))
                lots = [self._thinned(*pair, prices) for pair in zip(first, lots, strict=True)]
                prices, chosen = self._choose(value, lots, prices)
                if chosen is not None:
                    yield self._assembler.whole([each.bundle for each in chosen])
                fresh = self._promising(lots, chosen, prices)

    def _known(self, known: Mapping[CandidatePath, float]) -> Lots:
        flows = [table.flows(known) for table in self._tables]
        return [[self._keeping(number, own)] if own else [] for number, own in enumerate(flows)]

    def _gathered(self, value: float) -> Lots:
        gathered = self._assembler.gather(value, self._settings)
        return [[self._weighed(n, each) for each in own] for n, own in enumerate(gathered)]

    def _keeping(self, number: int, flows: Flows) -> Keeping:
        return self._weighed(number, bundle_of(self._tables[number], flows, self._terms))

    def _weighed(self, number: int, bundle: Bundle) -> Keeping:
        instances = instances_of(self._tables[number], bundle.flows)
        return Keeping(bundle=bundle, kept=kept_instances(instances, self._running))

    def _refilled(
        self, value: float, lots: Lots, prices: Floats, seen: set[tuple[int, Flows]]
    ) -> Lots:
        """Return the neighbours of bundles that have not been seen before."""
        new = [
            [each.bundle for each in own if (number, each.bundle.flows) not in seen]
            for number, own in enumerate(lots)
        ]
        seen.update((number, each.flows) for number, own in enumerate(new) for each in own)

        def neighbours(number: int) -> list[Keeping]:
            return [
                self._weighed(number, each)
                for bundle in new[number]
                for each in refills(self._assembler, number, bundle, value, prices)
            ]

        return side_by_side(neighbours, len(new))

    def _choose(
        self, value: float, lots: Lots, prices: Floats
    ) -> tuple[Floats, list[Keeping] | None]:
        """Return new prices, and the bundle of each model that together keep most, if they fit."""
        bundles = [[each.bundle for each in own] for own in lots]
        choice = self._assembler.choice(bundles)
        choice.keep([[each.kept for each in own] for own in lots], value)
        worth = choice.prices()
        units = self._terms.count * np.array(self._terms.per_gpu)
        mean = float(worth @ units) / float(self._terms.unit_prices @ units)
        worth = np.maximum(worth, _LEAST * mean * self._terms.unit_prices)
        prices = _OLD * prices + (1 - _OLD) * worth
        chosen = choice.whole(self._settings)
        if chosen is None:
            return prices, None
        places = [own.index(each) for own, each in zip(bundles, chosen, strict=True)]
        return prices, [own[at] for own, at in zip(lots, places, strict=True)]

    def _promising(self, lots: Lots, chosen: Sequence[Keeping] | None, prices: Floats) -> Lots:
        """Return the bundles chosen, and those that cost least at the prices."""
        best = [sorted(own, key=lambda each: _cost(each, prices))[:_PROMISING] for own in lots]
        if chosen is None:
            return best
        return [[*own, each] for own, each in zip(best, chosen, strict=True)]

    def _thinned(
        self, first: Sequence[Keeping], keepings: Sequence[Keeping], prices: Floats
    ) -> list[Keeping]:
        """Return the first, which is sure to fit, and those that cost least.

        Of those that take the same, only one that keeps most.
        """
        most: dict[Units, Keeping] = {}
        for each in keepings:
            known = most.get(each.bundle.units)
            if known is None or each.kept > known.kept:
                most[each.bundle.units] = each
        ranked = sorted(most.values(), key=lambda each: _cost(each, prices))
        return [*first, *ranked[:_MOST]]

    def _charged(self, target: float, unit_prices: Floats, near: int) -> Lots:
        """Return the cheapest bundle of each model, or none, where a lost instance costs 1."""
        numbers = range(len(self._tables))
        programs = [self._program(number, target, unit_prices, near) for number in numbers]
        soon = min(self._settings.deadline - _SPARE_S, time.perf_counter() + _TIME_S)
        settings = replace(self._settings, deadline=soon, relative_gap=_GAP)
        jobs = [Job(program=each.program, node_limit=_NODES) for each in programs]
        found: Lots = [[] for _ in numbers]
        for number, answer in enumerate(run_all(jobs, settings)):
            named = programs[number].flow.items()
            values = {path: answer.values.get(flow, 0.0) for path, flow in named}
            flows = self._tables[number].flows(values)
            if flows:
                found[number].append(self._keeping(number, flows))
        return found

    def _program(self, number: int, target: float, unit_prices: Floats, near: int) -> Formulation:
        """Return the program that carries one model's demand at the least cost and loss.

        A GPU's parts cost what they are: models share GPUs.
        """
        rate_rps = self._assembler.demand(number, target)
        price = (unit_prices * np.array(self._terms.per_gpu)).tolist()
        task = replace(
            self._task,
            models=(replace(self._task.models[number], rate_rps=rate_rps),),
            sought=Cheapest(dict(zip(self._terms.names, price, strict=True)), whole=False),
        )
        paths = self._tables[number].candidates(self._near(number, near))
        formulation = formulate(Problem(task=task, paths=tuple(paths)))
        charge_lost(formulation, self._running, 1.0)
        return formulation

    def _near(self, number: int, most: int) -> Ints:
        """Return the paths that run, of which a stage runs, and that lose least."""
        table, costs = self._tables[number], self._assembler.costs[number]
        touching = table.touching(self._running)
        nearest = np.argsort(costs, kind="stable")[:most]
        touching = touching[np.argsort(costs[touching], kind="stable")[:most]]
        return np.unique(np.concatenate([nearest, touching, table.running(self._running)]))


def _cost(keeping: Keeping, unit_prices: Floats) -> float:
    """Return what a bundle takes, less what it keeps."""
    return float(np.array(keeping.bundle.units) @ unit_prices) - keeping.kept


def _together(*lots: Lots) -> Lots:
    return [[each for lot in own for each in lot] for own in zip(*lots, strict=True)]

"""Keepers: bundles that hold on to instances that run already, and the choice that keeps most.

Each comes from a program over the paths of one model near what runs: the cheapest bundle where a
lost instance costs something, and, *squeezed*, the one that loses least in the room that such
bundles of all other models leave. Where losing costs much these programs are easy: what runs is a
good solution, and a bound that holds it is found at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from planner.assemble import Assembled, Assembler
from planner.bundles import Bundle, bundle_of, instances_of
from planner.candidates import CandidatePath
from planner.formulation import Formulation, Problem, formulate
from planner.paths import Ints
from planner.replan import Running, charge_lost, kept_instances
from planner.solve import Job, SolverSettings, run_all
from planner.sought import Cheapest

_CHEAP = 0.3  # what losing an instance costs, as a part of what an instance costs on average
_WORTHS = (1.0, _CHEAP, 0.1)  # tried one after the other, as long as there is time
_PATHS = 60  # of which a stage runs, and as many that lose least, per model
_NODES = 1000
_TIME_S = 0.3  # for a program of every model
_SQUEEZE_TIME_S = 0.6
_GAP = 5e-3
_ALIKE = 10  # bundles of a model that keep equally many

Bundles: TypeAlias = Sequence[Sequence[Bundle]]  # of each model


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
        self._paths = [self._near(number) for number in range(len(self._tables))]

    def _near(self, number: int) -> Ints:
        table, costs = self._tables[number], self._assembler.costs[number]
        touching = table.touching(self._running)
        nearest = np.argsort(costs, kind="stable")[:_PATHS]
        touching = touching[np.argsort(costs[touching], kind="stable")[:_PATHS]]
        return np.unique(np.concatenate([nearest, touching, table.running(self._running)]))

    def cheap(self, target: float) -> list[list[Bundle]]:
        """Return a bundle of each model, or none, that keeps what is nearly as good as another."""
        return self._charged(target, _CHEAP)

    def trades(self, value: float, known: Mapping[CandidatePath, float]) -> Iterator[Assembled]:
        """Yield instances that reach a value and keep most, from more and more bundles.

        Args:
            value: times every weight, or the cost, as the objective has it.
            known: flows of a solution that reaches it, so that nothing that keeps less comes back.
        """
        flows = [table.flows(known) for table in self._tables]
        best = [
            [bundle_of(table, own, self._terms)] if own else []
            for table, own in zip(self._tables, flows, strict=True)
        ]
        bundles = _together(best, self._assembler.gather(value, self._settings))
        for worth in _WORTHS:
            base = self._charged(value, worth)
            bundles = _together(bundles, base)
            yield from self._trade(value, bundles)
            if self._settings.left_s <= 0:
                return
            squeezed = self._squeezed(value, base)
            if any(squeezed):
                bundles = _together(bundles, squeezed)
                yield from self._trade(value, bundles)

    def _trade(self, value: float, bundles: Bundles) -> Iterator[Assembled]:
        fewer = [self._cheapest_of_alike(number, own) for number, own in enumerate(bundles)]
        choice = self._assembler.choice(fewer)
        choice.keep([[self._kept(n, each) for each in own] for n, own in enumerate(fewer)], value)
        chosen = choice.whole(self._settings)
        if chosen is not None:
            yield self._assembler.whole(chosen)

    def _charged(self, target: float, worth: float) -> list[list[Bundle]]:
        """Return the cheapest bundle of each model, or none, where a lost instance costs."""
        numbers = range(len(self._tables))
        programs = {n: self._program(n, target, worth * self._instance) for n in numbers}
        return self._solved(programs, _TIME_S)

    def _squeezed(self, value: float, held: Bundles) -> list[list[Bundle]]:
        """Return bundles, model by model, that leave room for all others to hold what they have."""
        programs: dict[int, Formulation] = {}
        for number in range(len(self._tables)):
            others = [own[0] for n, own in enumerate(held) if n != number and own]
            if len(others) == len(self._tables) - 1:
                programs[number] = self._program(number, value, float(self._terms.price.max()))
                self._leave_room(programs[number], others, value)
        return self._solved(programs, _SQUEEZE_TIME_S)

    def _program(self, number: int, target: float, worth: float) -> Formulation:
        """Return the program that carries one model's demand at the least cost and loss.

        A GPU's parts cost what they are: models share GPUs.
        """
        rate_rps = self._assembler.demand(number, target)
        price = dict(zip(self._terms.names, self._terms.price.tolist(), strict=True))
        task = replace(
            self._task,
            models=(replace(self._task.models[number], rate_rps=rate_rps),),
            sought=Cheapest(price, whole=False),
        )
        paths = self._tables[number].candidates(self._paths[number])
        formulation = formulate(Problem(task=task, paths=tuple(paths)))
        charge_lost(formulation, self._running, worth)
        return formulation

    def _leave_room(self, formulation: Formulation, others: Sequence[Bundle], value: float) -> None:
        """Keep one model's program to the GPUs that others leave and to the cost."""
        units = np.sum([each.units for each in others], axis=0)
        taken = units / np.array(self._terms.per_gpu)
        program, sought = formulation.program, self._task.sought
        price = sought.price if isinstance(sought, Cheapest) else {}
        cost = program.add_linear_constraint(ub=value if price else 0.0)
        for at, name in enumerate(self._terms.names):
            gpus = program.add_variable(lb=0.0, ub=float(self._terms.count[at]), is_integer=True)
            program.add_linear_constraint(gpus - formulation.gpus[name] >= float(taken[at]))
            cost.set_coefficient(gpus, price.get(name, 0.0))

    def _solved(self, programs: Mapping[int, Formulation], time_s: float) -> list[list[Bundle]]:
        """Return a bundle of each model whose program has a solution."""
        soon = min(self._settings.deadline, time.perf_counter() + time_s)
        settings = replace(self._settings, deadline=soon, relative_gap=_GAP)
        jobs = [Job(program=each.program, node_limit=_NODES) for each in programs.values()]
        found: list[list[Bundle]] = [[] for _ in self._tables]
        for (number, each), answer in zip(programs.items(), run_all(jobs, settings), strict=True):
            values = {path: answer.values.get(flow, 0.0) for path, flow in each.flow.items()}
            flows = self._tables[number].flows(values)
            if flows:
                found[number].append(bundle_of(self._tables[number], flows, self._terms))
        return found

    def _kept(self, number: int, bundle: Bundle) -> int:
        return kept_instances(instances_of(self._tables[number], bundle.flows), self._running)

    def _cheapest_of_alike(self, number: int, bundles: Sequence[Bundle]) -> list[Bundle]:
        """Return the first bundle, and the cheapest of those that keep equally many.

        The first is that of the solution at hand, which is sure to fit.
        """
        prices = self._terms.unit_prices
        ranked = sorted(bundles, key=lambda each: float(np.array(each.units) @ prices))
        seen: Counter[int] = Counter()
        chosen = list(bundles[:1])
        for each in ranked:
            kept = self._kept(number, each)
            seen[kept] += 1
            if seen[kept] <= _ALIKE:
                chosen.append(each)
        return chosen


def _together(*lots: Bundles) -> list[list[Bundle]]:
    return [[each for lot in own for each in lot] for own in zip(*lots, strict=True)]

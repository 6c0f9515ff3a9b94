"""Charged: a small program per model finds where GPUs and lost instances together cost least.

Programs are slow, so they see few paths: those that run, and some near them. Their trees are
limited in nodes; only the deadline depends on the machine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.assemble import Assembler
from planner.bundles import Flows
from planner.formulation import Formulation, Problem, formulate
from planner.paths import Floats, Ints
from planner.replan import Running, charge_lost
from planner.solve import Job, SolverSettings, run_all
from planner.sought import Cheapest

_NODES = 50
_GAP = 0.02


class Charged:
    """The programs of all models at some prices."""

    def __init__(
        self,
        assembler: Assembler,
        running: Running,
        target: float,
        unit_prices: Floats,
        near: int,
    ) -> None:
        """Set them up.

        Args:
            assembler: its task, paths and terms.
            running: instances that run already; each that is lost costs 1.
            target: what the demands follow from.
            unit_prices: of a unit, per class.
            near: paths that lose least, and as many of those of which a stage runs, besides those
                that run.
        """
        self._assembler = assembler
        self._running = running
        self._near = near
        terms = assembler.terms
        price = (unit_prices * np.array(terms.per_gpu)).tolist()
        # A GPU's parts cost what they are: models share GPUs.
        self._sought = Cheapest(dict(zip(terms.names, price, strict=True)), whole=False)
        self._programs = [self._program(n, target) for n in range(len(assembler.tables))]

    def flows(self, settings: SolverSettings) -> list[Flows]:
        """Return the flows of each model's cheapest bundle; none where none was found."""
        jobs = [Job(program=each.program, node_limit=_NODES) for each in self._programs]
        answers = run_all(jobs, replace(settings, relative_gap=_GAP))
        solved = zip(self._assembler.tables, self._programs, answers, strict=True)
        return [
            table.flows({path: answer.values.get(flow, 0.0) for path, flow in each.flow.items()})
            for table, each, answer in solved
        ]

    def _program(self, number: int, target: float) -> Formulation:
        """Return the program that carries one model's demand at the least cost and loss."""
        model = self._assembler.task.models[number]
        served = replace(model, rate_rps=self._assembler.demand(number, target))
        task = replace(self._assembler.task, models=(served,), sought=self._sought)
        paths = self._assembler.tables[number].candidates(self._chosen(number))
        formulation = formulate(Problem(task=task, paths=tuple(paths)))
        charge_lost(formulation, self._running, 1.0)
        return formulation

    def _chosen(self, number: int) -> Ints:
        """Return the paths that run, of which a stage runs, and that lose least."""
        table, costs = self._assembler.tables[number], self._assembler.costs[number]
        touching = table.touching(self._running)
        nearest = np.argsort(costs, kind="stable")[: self._near]
        touching = touching[np.argsort(costs[touching], kind="stable")[: self._near]]
        return np.unique(np.concatenate([nearest, touching, table.running(self._running)]))

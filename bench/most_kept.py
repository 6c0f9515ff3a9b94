"""How many running instances a plan of some value may keep: seen in a plan, and proven.

The bound is that of one program over all paths that a plan of that value may use, whatever time
batches take to fill: more paths than any plan has, so it holds for every plan.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from penstock.domain.cluster import Cluster
from planner.enumeration import enumerate_paths
from planner.fixing import surviving
from planner.inputs import Profiles, gather_inputs
from planner.planning import solver_settings
from planner.programs import problem_of
from planner.relaxation import relax
from planner.replan import Running, kept_instances, least_lost
from planner.solve import Job, run
from planner.sought import task_of

_HAIR = 1e-6  # instances: room for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class MostKept:
    """Instances that a plan can keep: at least, as one does, and at most, as is proven."""

    at_least: int
    at_most: int

    def allows(self, wanted: float) -> bool | None:
        """Tell whether so many can be kept; None: that is open."""
        if self.at_least >= wanted:
            return True
        return False if self.at_most < wanted else None


def most_kept(
    cluster: Cluster, profiles: Profiles, running: Running, value: float, seconds: float
) -> MostKept:
    """Return how many of the running instances a plan that reaches a value can keep.

    Args:
        cluster: with the options to plan by.
        profiles: one for every model and GPU class.
        running: instances by stage.
        value: of the objective.
        seconds: for the program.
    """
    inputs = gather_inputs(cluster, profiles)
    task = task_of(inputs)
    tables = enumerate_paths(inputs, {each.served.name: math.inf for each in inputs.models})
    relaxation = relax(task, tables)
    if relaxation is None:
        return MostKept(at_least=0, at_most=0)
    names = [each.name for each in task.gpu_classes]
    prices = np.array([relaxation.price[name] for name in names])
    costs = [relaxation.reduced_costs(table, names) for table in tables]
    room = abs(relaxation.bound - value)
    near = [surviving(table, own, prices, room) for table, own in zip(tables, costs, strict=True)]
    total = sum(running.values())
    formulation = least_lost(problem_of(task, tables, near), running, value, 1.0)
    settings = solver_settings(cluster.options, "highs", time.perf_counter() + seconds)
    answer = run(Job(program=formulation.program), settings)
    # A stage that no such path has is lost for certain, and the program does not know it.
    within = kept_instances(dict.fromkeys(formulation.n, total), running)
    found = within - round(answer.value) if answer.values else 0
    return MostKept(at_least=found, at_most=math.floor(within - max(0.0, answer.bound) + _HAIR))

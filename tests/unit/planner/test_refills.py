from __future__ import annotations

import math
import time

import pytest

from bench.fleets import A100, L4, T4, Shape, make_fleet
from penstock.domain.cluster import PlannerOptions
from planner.assemble import Assembler
from planner.enumeration import enumerate_paths
from planner.inputs import gather_inputs
from planner.refills import refills
from planner.relaxation import relax
from planner.solve import SolverSettings
from planner.sought import task_of

SHAPE = Shape(kinds=(A100, L4, T4), reference=L4, batches=(1, 2, 4), models=2, blocks=4)


@pytest.mark.parametrize("seed", range(4))
def test_a_refilled_bundle_carries_the_demand_and_differs_in_one_flow(seed: int) -> None:
    options = PlannerOptions(max_stages=2, max_batch=4)
    inputs = gather_inputs(*make_fleet(30, SHAPE, options, seed))
    tables = enumerate_paths(inputs, {each.served.name: math.inf for each in inputs.models})
    task = task_of(inputs)
    relaxation = relax(task, tables)
    if relaxation is None:
        pytest.fail("every model has paths")
    assembler = Assembler(task, tables, relaxation)
    target = 0.9 * relaxation.bound
    settings = SolverSettings(
        solver="highs", deadline=time.perf_counter() + 20, relative_gap=0.01, seed=0
    )
    for number, own in enumerate(assembler.gather(target, settings)):
        bundle = own[0]
        found = refills(assembler, number, bundle, target, assembler.terms.unit_prices)
        assert found
        before = dict(bundle.flows)
        for each in found:
            carried = sum(flow for _, flow in each.flows)
            # A knapsack counts its items to the cell below, so none carries less than it was to.
            assert carried >= assembler.demand(number, target) * (1 - 1e-9)
            less = [path for path, flow in before.items() if dict(each.flows).get(path, 0) < flow]
            assert len(less) <= 1

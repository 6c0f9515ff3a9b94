from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from bench.fleets import A100, L4, T4, Shape, make_fleet
from penstock.domain.cluster import Objective, Packing, PlannerOptions
from planner.assemble import Assembler
from planner.beam import Beam
from planner.bundles import Bundle, Cover, Items, bundle_of, list_items
from planner.enumeration import enumerate_paths
from planner.inputs import PlannerInputs, gather_inputs
from planner.optimise import optimise
from planner.paths import PathTable
from planner.relaxation import Relaxation, relax
from planner.solution import gpus_used, with_flows
from planner.solve import SolverSettings
from planner.sought import Task, task_of

SHAPE = Shape(kinds=(A100, L4, T4), reference=L4, batches=(1, 2, 4), models=3, blocks=4)
PER_GPU = (12, 12, 12)


def settings(seconds: float = 30.0) -> SolverSettings:
    return SolverSettings(
        solver="highs", deadline=time.perf_counter() + seconds, relative_gap=0.0, seed=0
    )


def fleet(gpus: int = 40) -> PlannerInputs:
    options = PlannerOptions(max_stages=2, max_batch=4)
    return gather_inputs(*make_fleet(gpus, SHAPE, options, seed=3))


def relaxed(inputs: PlannerInputs) -> tuple[Task, tuple[PathTable, ...], Relaxation]:
    at_once = {model.served.name: math.inf for model in inputs.models}
    task, tables = task_of(inputs), enumerate_paths(inputs, at_once)
    relaxation = relax(task, tables)
    if relaxation is None:
        pytest.fail("every model has paths")
    return task, tables, relaxation


def priced_items(demand_scale: float) -> tuple[PathTable, Items, np.ndarray, float, float]:
    task, tables, relaxation = relaxed(fleet())
    terms = Assembler(task, tables, relaxation).terms
    model = task.models[0]
    demand = model.weight * relaxation.bound * demand_scale
    worth = relaxation.worth[model.name]
    costs = relaxation.reduced_costs(tables[0], terms.names)
    items = list_items(tables[0], costs, worth, demand, terms)
    assert terms.per_gpu == PER_GPU
    return tables[0], items, terms.unit_prices, demand, worth


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_every_bundle_carries_the_demand_and_counts_what_it_takes(scale: float) -> None:
    table, items, prices, demand, _ = priced_items(scale)
    bundles = Cover(items, prices, demand).bundles()
    assert bundles
    for bundle in bundles:
        assert sum(flow for _, flow in bundle.flows) >= demand * (1 - 1e-9)
        assert all(units >= least for units, least in _pairs(table, bundle))


def _pairs(table: PathTable, bundle: Bundle) -> list[tuple[int, int]]:
    """Return the units a bundle counts beside those its flows take when each path is merged."""
    paths = np.array([path for path, _ in bundle.flows])
    flows = np.array([flow for _, flow in bundle.flows])
    taken = table.units(paths, flows, PER_GPU).sum(axis=0)
    return list(zip(bundle.units, taken.tolist(), strict=True))


def test_the_first_bundle_is_no_dearer_than_any_item_alone_or_any_other_bundle() -> None:
    _, items, prices, demand, worth = priced_items(1.0)
    costs = [
        float(np.array(each.units) @ prices) for each in Cover(items, prices, demand).bundles()
    ]
    alone = (items.units @ prices)[items.flow >= demand]
    assert costs[0] == min(costs)
    assert costs[0] <= alone.min(initial=math.inf)
    assert costs[0] >= worth * demand * (1 - 1e-9)  # nothing beats the relaxation


def test_a_demand_no_item_can_add_up_to_has_no_bundle() -> None:
    _, items, prices, demand, _ = priced_items(1.0)
    small = Items(path=items.path[:1], flow=np.array([demand / 10]), units=items.units[:1])
    assert Cover(small, prices, demand).bundles() == []


@pytest.mark.parametrize("packing", ["whole-gpu", "per-stage"])
def test_what_is_assembled_reaches_its_target_and_fits(packing: Packing) -> None:
    task, tables, relaxation = relaxed(fleet())
    task = replace(task, packing=packing)
    target = 0.7 * relaxation.bound
    fitting = Assembler(task, tables, relaxation).fit(target, settings())
    if fitting is None:
        pytest.fail("seven tenths of the relaxation are within reach")
    problem, instances = fitting
    used = gpus_used(task, instances)
    assert all(used[name] <= count for name, count in task.limits.count.items())
    assert with_flows(problem, instances).objective_rps >= target * (1 - 1e-9)


def test_nothing_is_assembled_above_the_relaxation() -> None:
    task, tables, relaxation = relaxed(fleet())
    assembler = Assembler(task, tables, relaxation)
    assert assembler.share(1.01 * relaxation.bound) > 1
    assert assembler.fit(1.01 * relaxation.bound, settings()) is None


@pytest.mark.parametrize("objective", ["least-cost", "fewest-gpus"])
def test_rates_get_a_first_plan_within_the_relaxation(objective: Objective) -> None:
    inputs = fleet()
    _, _, relaxation = relaxed(inputs)
    asked = tuple(
        replace(model, served=replace(model.served, rate_rps=relaxation.bound * 0.5))
        for model in inputs.models
    )
    inputs = replace(inputs, models=asked, options=replace(inputs.options, objective=objective))
    task, tables, relaxation = relaxed(inputs)
    fitting = Assembler(task, tables, relaxation).fit(relaxation.bound, settings())
    if fitting is None:
        pytest.fail("half of the greatest throughput is within reach")
    found = with_flows(*fitting)
    assert relaxation.bound <= found.value <= 1.25 * relaxation.bound
    best = optimise(task, tables, replace(settings(2.0), relative_gap=0.05))
    assert best is not None
    assert best.value <= found.value


def test_equal_seeds_assemble_equal_instances() -> None:
    task, tables, relaxation = relaxed(fleet())
    one, two = (
        Assembler(task, tables, relaxation).fit(0.8 * relaxation.bound, settings())
        for _ in range(2)
    )
    if one is None or two is None:
        pytest.fail("eight tenths of the relaxation are within reach")
    assert one[1] == two[1]


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_bundles_that_share_pools_carry_the_demand_and_waste_no_more(scale: float) -> None:
    table, items, prices, demand, worth = priced_items(scale)
    task, tables, relaxation = relaxed(fleet())
    terms = Assembler(task, tables, relaxation).terms
    cover = Cover(items, prices, demand)
    bundles = Beam(table, cover, terms, prices, demand).bundles()
    costs = [float(np.array(each.units) @ prices) for each in bundles]
    assert min(costs) <= cover.least * (1 + 1e-9)
    assert min(costs) >= worth * demand * (1 - 1e-9)  # nothing beats the relaxation
    for bundle in bundles:
        assert sum(flow for _, flow in bundle.flows) >= demand * (1 - 1e-9)
        assert bundle == bundle_of(table, bundle.flows, terms)


def test_the_same_beam_finds_the_same_bundles() -> None:
    table, items, prices, demand, _ = priced_items(1.0)
    task, tables, relaxation = relaxed(fleet())
    terms = Assembler(task, tables, relaxation).terms
    first, second = (
        Beam(table, Cover(items, prices, demand), terms, prices, demand).bundles() for _ in "ab"
    )
    assert first == second

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from bench.fleets import Shape, make_fleet
from penstock.domain.cluster import PlannerOptions
from planner.decompose import TargetSearch
from planner.enumeration import enumerate_paths
from planner.fixing import surviving
from planner.formulation import Problem, formulate
from planner.inputs import gather_inputs
from planner.optimise import optimise
from planner.paths import PathTable
from planner.relaxation import Relaxation, relax
from planner.search import estimate_rates
from planner.solution import Solution, finish
from planner.solve import Job, SolverSettings, run
from planner.sought import Task, task_of


def settings(gap: float = 0.0) -> SolverSettings:
    return SolverSettings(
        solver="highs", deadline=time.perf_counter() + 30, relative_gap=gap, seed=0
    )


def posed(models: int, seed: int) -> tuple[Task, Sequence[PathTable], Relaxation]:
    """Return a fleet of 12 GPUs with few enough paths to be solved outright, and its bound."""
    options = PlannerOptions(max_stages=2, max_batch=2)
    shape = Shape(models=models, blocks=3, batches=(1, 2), shares=(1, 2))
    inputs = gather_inputs(*make_fleet(12, shape, options, seed))
    task = task_of(inputs)
    tables = enumerate_paths(inputs, estimate_rates(inputs, settings(1e-3)))
    relaxation = relax(task, tables)
    assert relaxation is not None
    return task, tables, relaxation


def outright(task: Task, tables: Sequence[PathTable]) -> Solution:
    """Return the optimum over all paths, by one program and nothing else."""
    paths = [path for table in tables for path in table.candidates(np.arange(len(table)))]
    problem = Problem(task=task, paths=tuple(paths))
    formulation = formulate(problem)
    answer = run(Job(program=formulation.program), settings(1e-5))
    assert answer.finished
    counts = {pool: round(answer.values[each]) for pool, each in formulation.n.items()}
    used = {pool: count for pool, count in counts.items() if count}
    return finish(problem, used, answer.value, settings())


@pytest.mark.parametrize("seed", range(3))
def test_what_the_best_plan_uses_survives_exactly_the_room_it_takes(seed: int) -> None:
    task, tables, relaxation = posed(1, seed)
    best = outright(task, tables)
    names = [each.name for each in task.gpu_classes]
    prices = np.array([relaxation.price[name] for name in names])
    costs = relaxation.reduced_costs(tables[0], names)
    room = relaxation.bound - best.value
    kept = surviving(tables[0], costs, prices, room)
    assert {path for path, _ in tables[0].flows(best.flows)} <= set(kept.tolist())
    assert len(kept) < len(tables[0])


def test_the_less_room_the_fewer_paths_survive_and_closed_ones_never_do() -> None:
    task, tables, relaxation = posed(1, 0)
    names = [each.name for each in task.gpu_classes]
    prices = np.array([relaxation.price[name] for name in names])
    costs = relaxation.reduced_costs(tables[0], names)
    rooms = [relaxation.bound * part for part in (0.0, 0.01, 0.05, 2.0)]
    kept = [set(surviving(tables[0], costs, prices, room).tolist()) for room in rooms]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    closed = np.where(np.arange(len(costs)) % 2 == 0, np.inf, costs)
    assert all(row % 2 for row in surviving(tables[0], closed, prices, rooms[2]))


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_a_target_is_reached_up_to_the_optimum_and_refuted_above_it(models: int, seed: int) -> None:
    task, tables, relaxation = posed(models, seed)
    best = outright(task, tables)
    closed = [np.zeros(len(table), dtype=bool) for table in tables]
    search = TargetSearch(task, tables, closed, relaxation, settings())
    assert search.decide(best.value * 1.0001).refuted
    verdict = search.decide(best.value * 0.9999)
    assert not verdict.refuted
    if verdict.reached is not None:  # else the answers leave holes in the GPUs
        assert set(verdict.reached)


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_the_search_agrees_with_one_program_over_all_paths(models: int, seed: int) -> None:
    task, tables, _ = posed(models, seed)
    best = outright(task, tables)
    found = optimise(task, tables, settings(1e-4))
    assert found is not None
    assert found.value == pytest.approx(best.value, rel=2e-4)
    assert found.bound >= best.value * (1 - 1e-9)

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from bench.fleets import A100, L4, T4, Kind, Shape, make_fleet
from penstock.domain.cluster import PlannerMode, PlannerOptions
from planner.decompose import TargetSearch
from planner.dividing import Divided, Division
from planner.enumeration import enumerate_paths
from planner.formulation import Problem, formulate
from planner.inputs import gather_inputs
from planner.least_waste import Cheapest, ModelWaste
from planner.paths import PathTable
from planner.relaxation import relax
from planner.search import estimate_rates
from planner.solution import gpus_used
from planner.solve import Job, SolverSettings, run
from planner.sought import Task, task_of


def settings(gap: float = 1e-5) -> SolverSettings:
    return SolverSettings(
        solver="highs", deadline=time.perf_counter() + 30, relative_gap=gap, seed=0
    )


def posed(
    mode: PlannerMode, models: int, seed: int, kinds: tuple[Kind, ...] = (A100, L4, T4)
) -> tuple[Task, Sequence[PathTable]]:
    options = PlannerOptions(
        mode=mode,
        packing="whole-gpu" if mode == "general" else "per-stage",
        max_stages=2,
        max_batch=1,
    )
    shape = Shape(kinds=kinds, models=models, blocks=2, batches=(1,), shares=(1, 2))
    inputs = gather_inputs(*make_fleet(8, shape, options, seed))
    return task_of(inputs), enumerate_paths(inputs, estimate_rates(inputs, settings(1e-3)))


def search_of(task: Task, tables: Sequence[PathTable]) -> TargetSearch:
    relaxation = relax(task, tables)
    assert relaxation is not None
    closed = [np.zeros(len(table), dtype=bool) for table in tables]
    return TargetSearch(task, tables, closed, relaxation, settings())


def outright(task: Task, tables: Sequence[PathTable]) -> float:
    """Return the optimum over all paths, by one program and nothing else."""
    paths = [path for table in tables for path in table.candidates(np.arange(len(table)))]
    answer = run(Job(program=formulate(Problem(task=task, paths=tuple(paths))).program), settings())
    assert answer.finished
    return answer.value


def test_what_is_proven_of_little_waste_says_nothing_of_more() -> None:
    task, (table,) = posed("general", 1, 0)
    prices, lost = np.ones(len(task.gpu_classes)), np.zeros(len(table))
    model = ModelWaste(table, prices, lost, worth=0.1, samples_rps=1.0)
    model.look(0.25)
    assert model.learn(Cheapest({}, 0.5, finished=False)) == 0.25
    assert model.hard
    assert not model.sure


@pytest.mark.parametrize("mode", ["general", "compat"])
@pytest.mark.parametrize(("models", "seed"), [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_no_target_is_misjudged(mode: PlannerMode, models: int, seed: int) -> None:
    task, tables = posed(mode, models, seed)
    judge(task, tables)


@pytest.mark.parametrize("mode", ["general", "compat"])
@pytest.mark.parametrize(("models", "seed"), [(2, 0), (2, 1), (3, 2)])
def test_no_target_is_misjudged_where_the_fleet_is_divided(
    mode: PlannerMode, models: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided: list[Divided] = []

    class Watched(Division):
        def decide(self, order: Sequence[int]) -> Divided:
            divided.append(super().decide(order))
            return divided[-1]

    monkeypatch.setattr("planner.decompose.Division", Watched)
    monkeypatch.setattr("planner.decompose._MANY", -1)  # no model is asked by itself
    task, tables = posed(mode, models, seed, (A100, T4))
    judge(task, tables, (1.0001, 1.01, 1.1), (0.7, 0.9, 0.98, 0.9999))
    assert {each.refuted for each in divided} == {True, False}


def judge(
    task: Task,
    tables: Sequence[PathTable],
    beyond: Sequence[float] = (1.001, 1.1),
    within: Sequence[float] = (0.7, 0.98),
) -> None:
    """Compare the verdicts on targets around the optimum with what is true."""
    best = outright(task, tables)
    search = search_of(task, tables)
    for part in beyond:
        assert search.decide(best * part).refuted
    for part in within:
        verdict = search.decide(best * part)
        assert not verdict.refuted
        if verdict.reached is not None:  # else parts of GPUs leave holes
            used = gpus_used(task, verdict.reached)
            assert all(used[name] <= count for name, count in task.limits.count.items())

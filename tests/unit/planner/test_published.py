"""Objectives of published PPipe plans, reached from the same inputs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.domain.cluster import Packing, PlannerMode
from planner.baselines import no_partition
from planner.inputs import PlannerInputs, gather_inputs
from planner.published import PublishedConfiguration, PublishedPlan, Scheduler, configurations
from planner.search import best_solution
from planner.solution import Solution
from planner.solve import SolverSettings

DATA = Path(__file__).parents[3].parent / "shared" / "reference" / "ppipe" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published inputs are not at {DATA}")


@pytest.fixture(scope="module")
def published() -> tuple[PublishedConfiguration, ...]:
    return configurations(DATA, "maf19")


def inputs_of(
    found: PublishedConfiguration, plan: PublishedPlan, mode: PlannerMode
) -> PlannerInputs:
    packing: Packing = "per-stage" if mode == "compat" else "whole-gpu"
    options = replace(plan.cluster.options, mode=mode, packing=packing)
    return gather_inputs(replace(plan.cluster, options=options), found.profiles)


def solved(inputs: PlannerInputs, plan: PublishedPlan, gap: float = 1e-5) -> Solution:
    settings = SolverSettings(
        solver="highs", deadline=time.perf_counter() + 60, relative_gap=gap, seed=0
    )
    return best_solution(inputs, plan.rates, settings)


@pytest.mark.parametrize("number", [0, 2, 5, 11, 18, 22])
def test_the_partitioned_plans_are_reached(
    published: tuple[PublishedConfiguration, ...], number: int
) -> None:
    plan = published[number].plans[Scheduler.PPIPE]
    found = solved(inputs_of(published[number], plan, "compat"), plan)
    assert found.objective_rps >= plan.objective_rps * 0.9999
    assert found.status == "optimal"


@pytest.mark.parametrize("number", [0, 7, 13, 23])
def test_the_plans_without_partitioning_are_equalled(
    published: tuple[PublishedConfiguration, ...], number: int
) -> None:
    plan = published[number].plans[Scheduler.NO_PARTITION]
    found = solved(no_partition(inputs_of(published[number], plan, "compat")), plan)
    assert found.objective_rps == pytest.approx(plan.objective_rps, rel=1e-6)


def test_the_general_mode_is_never_worse(published: tuple[PublishedConfiguration, ...]) -> None:
    plan = published[21].plans[Scheduler.PPIPE]
    found = solved(inputs_of(published[21], plan, "general"), plan, gap=1e-3)
    assert found.objective_rps >= plan.objective_rps
    assert found.gap <= 1e-3

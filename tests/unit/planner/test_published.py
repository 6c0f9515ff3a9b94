"""Objectives of published PPipe plans, reached from the same inputs."""

from __future__ import annotations

import time

import pytest

from planner.inputs import gather_inputs
from planner.search import best_solution
from planner.solve import SolverSettings
from tests.unit.planner.published import DATA, plan_files, read_configuration

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published inputs are not at {DATA}")

# Transfer times are whole microseconds here, rounded up: a plan that its links bind loses up to
# one microsecond in its transfer time (4194.304 → 4195 µs at worst).
ROUNDED = 2e-4


def objective_ratio(kind: str, number: int) -> float:
    published = read_configuration(plan_files(kind)[number])
    settings = SolverSettings(
        solver="highs", deadline=time.perf_counter() + 60, relative_gap=1e-5, seed=0
    )
    inputs = gather_inputs(published.cluster, published.profiles)
    found = best_solution(inputs, published.rates, settings)
    assert found.status == "optimal"
    return found.objective_rps / published.objective_rps


@pytest.mark.parametrize("number", [0, 4, 5, 10, 11, 19])
def test_the_partitioned_plans_are_reached(number: int) -> None:
    assert objective_ratio("v4", number) >= 1 - ROUNDED


@pytest.mark.parametrize("number", [0, 7, 13, 23])
def test_the_plans_without_partitioning_are_equalled(number: int) -> None:
    assert objective_ratio("bl", number) == pytest.approx(1.0, rel=1e-6)

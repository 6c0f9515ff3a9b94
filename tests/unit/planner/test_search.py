from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import pytest

from penstock.domain.cluster import Cluster, PlannerOptions
from planner.baselines import no_partition
from planner.candidates import CandidatePath, CandidatePool
from planner.enumeration import enumerate_paths
from planner.formulation import Group, Problem, formulate
from planner.inputs import gather_inputs
from planner.optimise import optimise
from planner.search import best_solution, estimate_rates, find_solution
from planner.solution import loose_groups
from planner.solve import Job, SolverSettings, run
from planner.sought import Cheapest, Limits, task_of
from tests.unit.planner.fleets import (
    DIGITS,
    FAST,
    SLOW,
    gpu_class,
    mixed_fleet,
    profile,
    served,
    whole,
)


def settings(solver: Literal["gscip", "highs"] = "gscip", seconds: float = 30.0) -> SolverSettings:
    return SolverSettings(
        solver=solver, deadline=time.perf_counter() + seconds, relative_gap=0.0, seed=0
    )


@pytest.mark.parametrize("solver", ["gscip", "highs"])
def test_two_stages_over_two_classes(solver: Literal["gscip", "highs"]) -> None:
    inputs = gather_inputs(*mixed_fleet(slo_ms=45))
    solution = find_solution(inputs, settings(solver))
    assert solution.objective_rps == pytest.approx(125)  # 8 ms for half the blocks on one fast
    assert solution.bound == pytest.approx(125)
    assert solution.status == "optimal"


def test_left_over_gpus_get_no_instance() -> None:
    solution = find_solution(gather_inputs(*mixed_fleet(slo_ms=45)), settings())
    used = {pool.gpu_class.name: count for pool, count in solution.instances.items()}
    assert used == {"fast": 1, "slow": 2}  # a third slow GPU would change nothing


def test_the_baseline_keeps_models_whole() -> None:
    inputs = no_partition(gather_inputs(*mixed_fleet(slo_ms=45)))
    solution = find_solution(inputs, settings())
    assert solution.objective_rps == pytest.approx(62.5)
    assert {pool.m for pool in solution.instances} == {1}


def test_batches_are_assumed_to_fill_at_the_no_partition_rate() -> None:
    inputs = gather_inputs(*mixed_fleet(slo_ms=80))
    assert estimate_rates(inputs, settings()) == {DIGITS: pytest.approx(1e6 * 2 / 24_000)}


def test_without_a_no_partition_plan_the_partitioned_rate_is_assumed() -> None:
    cluster, profiles = mixed_fleet(slo_ms=80)
    need = 2 * (1 << 20) + 2 * (1 << 16)  # two blocks at batch 2: no GPU holds the whole model
    classes = tuple(replace(each, memory_bytes=need) for each in cluster.gpu_classes)
    inputs = gather_inputs(replace(cluster, gpu_classes=classes), profiles)
    assumed = estimate_rates(inputs, settings())[DIGITS]
    solution = find_solution(inputs, settings())
    assert assumed == pytest.approx(1e6 * 2 / 12_000)
    assert solution.objective_rps <= assumed


def test_a_batch_never_gets_less_time_than_it_takes_to_fill_at_the_planned_load() -> None:
    # One GPU; at batch 2 a little more throughput without the allowance than with it.
    cluster = Cluster(
        gpu_classes=(gpu_class("fast", 2),),
        models=(served(slo_ms=31, weight=1.0), served("other", slo_ms=31, weight=1.0)),
        options=PlannerOptions(max_batch=2, slo_margin=0.0),
    )
    table = whole([10_000], [19_000])
    profiles = {(m.name, FAST): profile(m.name, "fast", table) for m in cluster.models}
    inputs = gather_inputs(cluster, profiles)
    assert estimate_rates(inputs, settings())[DIGITS] == pytest.approx(2e6 / 19_000)
    solution = find_solution(inputs, settings())
    assert solution.objective_rps == pytest.approx(100)  # 19 + 1.3 · 9.5 ms > 31 ms: batch 1
    assert all(path.batch == 1 for path in solution.flows)


def test_higher_of_asked_and_weighted_rate_fills_batches() -> None:
    cluster, profiles = mixed_fleet(slo_ms=80)
    cluster = replace(cluster, models=(replace(cluster.models[0], rate_rps=100.0),))
    assert estimate_rates(gather_inputs(cluster, profiles), settings()) == {DIGITS: 100.0}


def test_weights_are_proportions() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    cluster = replace(
        cluster,
        gpu_classes=(gpu_class("fast", 4), gpu_class("slow", 1)),
        models=(served("digits", 60, weight=1.0), served("other", 60, weight=3.0)),
        options=replace(cluster.options, max_stages=1, max_batch=1),
    )
    both = {(m.name, c): profiles[DIGITS, c] for m in cluster.models for _, c in profiles}
    solution = find_solution(gather_inputs(cluster, both), settings())
    assert solution.objective_rps == pytest.approx(62.5)
    assert sum(solution.flows.values()) == pytest.approx(4 * 62.5)


def test_an_incumbent_is_returned_when_the_time_is_up() -> None:
    inputs = gather_inputs(*mixed_fleet(slo_ms=120, max_stages=3))
    solution = find_solution(inputs, settings(seconds=0.0))
    assert solution.objective_rps > 0
    assert solution.bound >= solution.objective_rps


def test_a_rate_out_of_reach_has_no_solution() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    cluster = replace(cluster, models=(replace(cluster.models[0], rate_rps=126.0),))
    inputs = gather_inputs(cluster, profiles)
    tables = enumerate_paths(inputs, {DIGITS: math.inf})
    assert optimise(task_of(inputs), tables, settings()) is None


def test_a_stage_that_takes_no_time_still_gets_an_instance() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    table = {FAST: whole([4000, 4000, 0, 0]), SLOW: whole([60_000, 60_000, 0, 0])}
    small = 2 * (1 << 20) + (1 << 16)  # no GPU holds more than two blocks
    classes = tuple(
        replace(each, memory_bytes=small, max_share_denominator=1) for each in cluster.gpu_classes
    )
    free = {(model, name): profile(model, name, table[name]) for model, name in profiles}
    solution = find_solution(gather_inputs(replace(cluster, gpu_classes=classes), free), settings())
    assert {pool.gpu_class.name: n for pool, n in solution.instances.items()} == {
        "fast": 1,
        "slow": 1,
    }
    assert solution.objective_rps == pytest.approx(125)


def pools_of(*shares: int) -> dict[CandidatePool, int]:
    """Return one pool of the same stage per share denominator, each with one instance."""
    return {
        CandidatePool(
            model=DIGITS,
            position=0,
            first_block=0,
            end_block=1,
            gpu_class=gpu_class("fast", 9),
            m=m,
            batch=1,
            latency_us=1,
            memory_bytes=1,
        ): 1
        for m in shares
    }


@pytest.mark.parametrize(
    ("shares", "fits"),
    [
        ((1, 2, 2), True),
        ((2, 4, 4, 8, 8, 1), True),
        ((2, 3, 3, 4, 4, 4), True),  # 23/12 on two GPUs, where first fit takes three
        ((2, 3, 3, 5, 5, 5, 5), False),  # 59/30, but no two GPUs hold them
    ],
)
def test_shares_that_leave_holes_are_noticed(shares: tuple[int, ...], fits: bool) -> None:
    task = task_of(gather_inputs(*mixed_fleet()))
    assert loose_groups(task, pools_of(*shares)) == (frozenset() if fits else {("fast", None, 0)})


@pytest.mark.parametrize(("laid_out", "gpus"), [(False, 2), (True, 3)])
def test_where_shares_leave_holes_gpus_are_counted_by_what_fills_them(
    laid_out: bool, gpus: int
) -> None:
    inputs = gather_inputs(*mixed_fleet())
    pools = pools_of(2, 3, 3, 5, 5, 5, 5)
    paths = tuple(
        CandidatePath(
            model=DIGITS,
            pools=(pool,),
            cut_bytes=(),
            transfers_us=(),
            batch_build_us=0,
            latency_us=1,
        )
        for pool in pools
    )
    one_each = {FAST: 1.0, SLOW: 1.0}
    task = replace(
        task_of(inputs), sought=Cheapest(one_each), limits=Limits(count={FAST: 9, SLOW: 9})
    )
    groups: frozenset[Group] = frozenset({(FAST, None, 0)} if laid_out else ())
    formulation = formulate(Problem(task=task, paths=paths, laid_out=groups))
    for variable in formulation.n.values():
        variable.lower_bound = 1.0
    assert run(Job(program=formulation.program), settings("highs")).value == pytest.approx(gpus)


def test_the_best_solution_depends_on_the_rates() -> None:
    inputs = gather_inputs(*mixed_fleet(slo_ms=80))
    slow_fill = best_solution(inputs, {DIGITS: 40.0}, settings())
    quick_fill = best_solution(inputs, {DIGITS: math.inf}, settings())
    assert slow_fill.objective_rps < quick_fill.objective_rps

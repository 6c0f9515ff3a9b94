from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

import pytest

from penstock.domain.cluster import Objective
from penstock.domain.errors import InvalidCluster, InvalidProfile
from penstock.domain.plan import Plan
from penstock.formats.plans import read_plan, write_plan
from planner.digests import input_digests
from planner.planning import make_plan
from planner.verify import find_faults
from tests.unit.planner.fleets import DIGITS, FAST, SLOW, mixed_fleet
from tests.unit.planner.test_outlook import priced


def timeless(plan: Plan) -> str:
    """Return the plan's file without what differs from run to run: the seconds it took."""
    return write_plan(replace(plan, solve=replace(plan.solve, seconds=0.0, phases=())))


def test_the_plan_in_full() -> None:
    cluster, profiles = mixed_fleet(slo_ms=80)
    plan = make_plan(cluster, profiles)
    (model,) = plan.models
    assert [pool.id for pool in model.pools] == [
        "digits.0.fast.1of1.0-1.b2",
        "digits.1.slow.1of1.2-3.b2",
    ]
    first, second = model.pools
    assert (first.position, first.first_block, first.end_block) == (0, 0, 2)
    assert (first.share, first.instances, first.latency_us) == (Fraction(1), 1, 12_000)
    assert first.latency_us_by_batch == (8_000, 12_000)
    assert (second.instances, second.memory_bytes) == (2, 2 * (1 << 20) + 2 * (1 << 16))
    (pipeline,) = model.pipelines
    assert pipeline.id == "digits.p0"
    assert pipeline.pools == (first.id, second.id)
    assert [(t.bytes_per_sample, t.us_per_sample) for t in pipeline.transfers] == [(100_000, 80)]
    assert pipeline.batch_build_us == 15_600
    assert pipeline.latency_us == 12_000 + 18_000 + 160 + 1500 + 15_600
    assert pipeline.throughput_rps == pytest.approx(1e6 / 6_000)
    assert model.throughput_rps == pipeline.throughput_rps == plan.solve.objective_rps
    assert (model.margin_us, model.blocks, model.weight) == (32_000, 4, 1.0)
    assert plan.hop_overhead_us == 500
    assert (plan.solve.formulation, plan.solve.solver) == ("general", "highs")
    assert plan.solve.gap == pytest.approx(0, abs=1e-9)
    assert plan.inputs == input_digests(cluster, profiles)


@pytest.mark.parametrize("slo_ms", [45, 60, 80, 120])
@pytest.mark.parametrize("solver", ["gscip", "highs"])
def test_equal_inputs_give_equal_bytes(slo_ms: float, solver: Literal["gscip", "highs"]) -> None:
    cluster, profiles = mixed_fleet(slo_ms=slo_ms)
    first, second = (make_plan(cluster, profiles, solver=solver) for _ in range(2))
    assert timeless(first) == timeless(second)


def test_a_plan_survives_its_file() -> None:
    cluster, profiles = mixed_fleet(slo_ms=120)
    plan = make_plan(cluster, profiles)
    again = read_plan(write_plan(plan), "plan.json")
    assert again == plan
    assert list(find_faults(again, cluster, profiles, input_digests(cluster, profiles))) == []


def test_the_baseline_says_so_and_is_worse() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    whole, split = (make_plan(cluster, profiles, partition=each) for each in (False, True))
    assert whole.solve.formulation == "no-partition"
    assert split.solve.objective_rps == pytest.approx(2 * whole.solve.objective_rps)
    assert whole.inputs == split.inputs  # the same fleet, planned in two ways


def test_plans_are_bound_to_their_blocks() -> None:
    cluster, profiles = mixed_fleet()
    bound = {key: replace(each, blocks_digest="abc") for key, each in profiles.items()}
    assert make_plan(cluster, bound).models[0].blocks_digest == "abc"
    assert make_plan(cluster, bound, blocks_digests={DIGITS: "abc"}).models[0].blocks_digest
    assert make_plan(cluster, profiles, blocks_digests={DIGITS: "x"}).models[0].blocks_digest == "x"
    with pytest.raises(InvalidProfile, match="blocks_digest"):
        make_plan(cluster, bound, blocks_digests={DIGITS: "other"})


@pytest.mark.parametrize("objective", ["goodput", "least-cost", "fewest-gpus"])
def test_all_objectives_but_max_min_need_rates(objective: Objective) -> None:
    cluster, profiles = mixed_fleet(objective=objective)
    cluster = priced(cluster, 4.0, 0.5)
    with pytest.raises(InvalidCluster, match=rf"models\[0\].rate_rps: .* objective {objective}"):
        make_plan(cluster, profiles)
    rated = replace(cluster, models=(replace(cluster.models[0], rate_rps=1.0),))
    assert make_plan(rated, profiles).solve.objective == objective


def test_least_cost_needs_prices() -> None:
    cluster, profiles = mixed_fleet(objective="least-cost")
    rated = replace(cluster, models=(replace(cluster.models[0], rate_rps=1.0),))
    with pytest.raises(InvalidCluster, match=r"gpu_classes\[0\].price_per_hour"):
        make_plan(rated, profiles)


def test_digests_change_with_the_inputs_but_not_with_options() -> None:
    cluster, profiles = mixed_fleet()
    before = {each.name: each.sha256 for each in input_digests(cluster, profiles)}
    assert list(before) == ["cluster", "profile digits fast", "profile digits slow"]
    seeded = replace(cluster, options=replace(cluster.options, seed=7))
    assert {each.name: each.sha256 for each in input_digests(seeded, profiles)} == before
    slow = profiles[DIGITS, SLOW]
    rows = (replace(slow.rows[0], latency_mean_us=1), *slow.rows[1:])
    changed = {**profiles, (DIGITS, SLOW): replace(slow, rows=rows)}
    after = {each.name: each.sha256 for each in input_digests(cluster, changed)}
    assert {name for name in after if after[name] != before[name]} == {"profile digits slow"}
    assert (DIGITS, FAST) in profiles

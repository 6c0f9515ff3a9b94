from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.domain.plan import Plan
from planner.explain import explain, facts
from planner.planning import make_plan
from planner.usage import cost_per_hour, gpus_used, latency_parts, pool_use
from tests.unit.planner.fleets import DIGITS, mixed_fleet
from tests.unit.planner.handmade import Stage, plan_by_hand


def by_hand(*ways: tuple[float, list[Stage]], **options: object) -> Plan:
    cluster, profiles = mixed_fleet(slo_ms=200, **options)
    return plan_by_hand(cluster, profiles, {"digits": ways})


def test_a_plan_in_words() -> None:
    plan = make_plan(*mixed_fleet(slo_ms=45))
    lines = explain(plan).splitlines()
    assert lines[:6] == [
        "digits: 125.0 samples/s within 45.0 ms (weight 1)",
        "  blocks 0-1 on 1× fast (batch 1, 8.00 ms) → blocks 2-3 on 2× slow (batch 1, 12.0 ms)",
        "    45.0 ms = compute 20.0 ms + transfer 0.08 ms + hops 1.50 ms + margin 18.0 ms "
        "+ spare 5.42 ms",
        "GPUs used: 1 of 1 fast, 2 of 3 slow",
        "digits binds; full: computing in blocks 0-1 on 1× fast (batch 1, 8.00 ms); "
        "no GPU left of fast",
        "Sought: the most of the least throughput per unit of weight: 125.0 samples/s",
    ]
    assert lines[6].startswith("Found by highs (general) in ")


def test_shares_and_several_pipelines_are_told() -> None:
    half = [Stage(blocks=(0, 4), gpu_class="fast", m=2, instances=2)]
    slow = [Stage(blocks=(0, 4), gpu_class="slow")]
    text = explain(by_hand((70.0, half), (15.0, slow)))
    assert "blocks 0-3 on 2× 1/2 of fast (batch 1, 28.0 ms), 70.0 samples/s" in text
    assert text.splitlines()[0] == "digits: 85.0 samples/s within 200.0 ms (weight 1)"


@pytest.mark.parametrize(
    ("gap", "told"),
    [(0.0, "proven best"), (4e-5, "proven best to 0.01%"), (0.25, "within 25.00% of the bound 4")],
)
def test_how_far_the_plan_is_proven(gap: float, told: str) -> None:
    plan = by_hand((30.0, [Stage(blocks=(0, 4), gpu_class="fast")]))
    solve = replace(plan.solve, value=3.0, bound=4.0, unit="gpus", objective="fewest-gpus", gap=gap)
    text = explain(replace(plan, solve=solve))
    assert "Sought: fewest GPUs for the rates asked: 3 GPUs" in text
    assert f", {told}" in text


def test_facts_for_programs() -> None:
    told = facts(make_plan(*mixed_fleet(slo_ms=45)))
    assert told["gpus_used"] == {"fast": 1, "slow": 2}
    assert told["objective_rps"] == told["value"] == pytest.approx(125)
    assert told["cost_per_hour"] is None
    (pipeline,) = told["models"][0]["pipelines"]
    assert list(pipeline["pool_use"].values()) == [1.0, 0.75]
    assert pipeline["latency_parts"] == {
        "compute_us": 20_000,
        "transfer_us": 80,
        "hops_us": 1_500,
        "batch_build_us": 0,
        "margin_us": 18_000,
        "spare_us": 5_420,
    }


def test_a_stage_with_a_smaller_batch_runs_a_group_in_several_goes() -> None:
    way = [
        Stage(blocks=(0, 2), gpu_class="fast", batch=2),
        Stage(blocks=(2, 4), gpu_class="slow", batch=1),
    ]
    plan = by_hand((50.0, way), rebatch=True)
    (model,) = plan.models
    parts = latency_parts(model.pipelines[0], model, plan)
    assert parts.compute_us == 12_000 + 2 * 12_000
    assert parts.transfer_us == 2 * 80
    assert parts.spare_us == model.slo_us - model.margin_us - model.pipelines[0].latency_us


def test_a_link_that_is_full_is_named_and_its_time_is_exact() -> None:
    cluster, profiles = mixed_fleet(slo_ms=200)
    wide = {key: replace(each, cut_bytes=(10_000_001,) * 3) for key, each in profiles.items()}
    # 8.0000008 ms a sample on 10 Gbit/s: rounded up to 8.001 ms it would seem more than full.
    way = [
        Stage(blocks=(0, 1), gpu_class="fast", instances=1),
        Stage(blocks=(1, 4), gpu_class="slow", instances=4),
    ]
    plan = plan_by_hand(cluster, wide, {"digits": [(1 / 8.0000008e-3, way)]})
    (model,) = plan.models
    use = pool_use(model.pools[0], model, plan)
    assert (use.work, use.full) == ("sending", True)
    assert use.part == pytest.approx(1.0, rel=1e-9)
    assert "full: sending in block 0 on 1× fast" in explain(plan)


def test_cost_is_of_the_gpus_in_use() -> None:
    plan = by_hand((30.0, [Stage(blocks=(0, 4), gpu_class="fast", m=2)]))
    prices = {"fast": 2.0, "slow": 0.5}
    classes = tuple(replace(each, price_per_hour=prices[each.name]) for each in plan.gpu_classes)
    priced = replace(plan, gpu_classes=classes)
    assert cost_per_hour(plan) is None
    assert cost_per_hour(priced) == pytest.approx(2.0)
    assert "GPUs used: 1 of 1 fast, 0 of 3 slow; 2.00 per hour" in explain(priced)


def test_compat_counts_sums_of_shares_rounded_up_by_position() -> None:
    way = [
        Stage(blocks=(0, 2), gpu_class="slow", m=2, instances=3),
        Stage(blocks=(2, 4), gpu_class="slow", m=2),
    ]
    cluster, profiles = mixed_fleet(slo_ms=200)
    fast = profiles[DIGITS, cluster.gpu_classes[0].name]
    slow = cluster.gpu_classes[1].name
    both = {**profiles, (DIGITS, slow): replace(fast, gpu_class=slow)}
    plan = plan_by_hand(cluster, both, {"digits": [(10.0, way)]})
    compat = replace(plan, solve=replace(plan.solve, formulation="compat"))
    assert gpus_used(compat) == {"fast": 0, "slow": 3}
    assert gpus_used(plan) == {"fast": 0, "slow": 2}

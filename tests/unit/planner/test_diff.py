from __future__ import annotations

import json
from dataclasses import replace

import pytest

from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from planner.diff import compare
from planner.diff_words import diff_facts, diff_text
from tests.unit.planner.fleets import mixed_fleet
from tests.unit.planner.handmade import Stage, plan_by_hand


def by_hand(*ways: tuple[float, list[Stage]], slo_ms: float = 200) -> Plan:
    return plan_by_hand(*mixed_fleet(slo_ms=slo_ms), {"digits": ways})


def whole(batch: int = 1, instances: int = 1) -> list[Stage]:
    return [Stage(blocks=(0, 4), gpu_class="slow", batch=batch, instances=instances)]


CUT = [
    Stage(blocks=(0, 2), gpu_class="fast", m=2, instances=2),
    Stage(blocks=(2, 4), gpu_class="slow", instances=2),
]


def test_equal_plans_do_not_differ() -> None:
    plan = by_hand((100.0, CUT), (15.0, whole()))
    diff = compare(plan, replace(plan, solve=replace(plan.solve, seconds=9.0)))
    assert diff.same
    assert diff_text(diff) == "no difference; 5 instances kept"
    assert diff_facts(diff)["same"] is True


def test_what_changes_is_told_aligned_and_the_rest_is_not() -> None:
    old = by_hand((100.0, CUT), (15.0, whole()))
    new = by_hand((150.0, [CUT[0], replace(CUT[1], instances=3)]), slo_ms=250)
    assert diff_text(compare(old, new)).splitlines() == [
        "models",
        "  digits  115.0 → 150.0 samples/s  +30.4%  SLO 200.0 → 250.0 ms, margin 80.0 → 100.0 ms",
        "pipelines",
        "  ~  digits  100.0 → 150.0 samples/s  batch 1  "
        "blocks 0-1 on 1/2 of fast → blocks 2-3 on slow",
        "  -  digits  15.0 samples/s           batch 1  blocks 0-3 on slow",
        "pools (instances)",
        "  digits  blocks 0-3 on slow  1 → 0  batch 1",
        "  digits  blocks 2-3 on slow  2 → 3  batch 1",
        "instances: 4 kept, 1 started, 1 stopped",
    ]


def test_another_batch_is_a_change_that_keeps_the_instances() -> None:
    diff = compare(by_hand((15.0, whole())), by_hand((15.0, whole(batch=2))))
    assert (diff.kept, diff.started, diff.stopped) == (1, 0, 0)
    assert not diff.same
    assert [each.kind for each in diff.pipelines] == ["changed"]
    assert "  digits  blocks 0-3 on slow  1 → 1  batch 1 → 2" in diff_text(diff)


def test_pools_of_one_stage_count_together_wherever_they_stand() -> None:
    private = [replace(whole()[0], private=".x", instances=2)]
    diff = compare(by_hand((15.0, whole()), (15.0, private)), by_hand((15.0, whole(instances=2))))
    (stage,) = diff.stages
    assert stage.instances == (3, 2)
    assert (diff.kept, diff.started, diff.stopped) == (2, 0, 1)


def test_models_that_come_and_go() -> None:
    old = by_hand((15.0, whole()))
    new = replace(old, models=(replace(old.models[0], model=ModelName("letters")),))
    lines = diff_text(compare(old, new)).splitlines()
    assert lines[1:3] == ["  letters  added", "  digits   removed"]
    assert lines[-1] == "instances: 0 kept, 1 started, 1 stopped"


def test_gpus_and_cost() -> None:
    def priced(plan: Plan, count: int) -> Plan:
        classes = (
            replace(each, price_per_hour=0.5, count=count if each.name == "slow" else each.count)
            for each in plan.gpu_classes
        )
        return replace(plan, gpu_classes=tuple(classes))

    old = priced(by_hand((15.0, whole())), 3)
    new = priced(by_hand((30.0, whole(instances=2))), 4)
    diff = compare(old, new)
    assert diff.cost_per_hour == pytest.approx((0.5, 1.0))
    text = diff_text(diff)
    assert "GPUs used\n  slow  1 → 2  of 3 → 4\ncost\n  per hour  0.50 → 1.00  +0.50\n" in text


def test_facts_are_json() -> None:
    old, new = by_hand((100.0, CUT)), by_hand((15.0, whole()))
    told = json.loads(json.dumps(diff_facts(compare(old, new))))
    assert told["instances"] == {"kept": 0, "started": 1, "stopped": 4}
    assert told["models"]["digits"]["throughput_rps"] == [100.0, 15.0]
    assert [each["change"] for each in told["pipelines"]] == ["removed", "added"]
    assert told["pools"][0]["share"] == "1/2"
    assert told["gpus"]["fast"] == {"used": [1, 0], "count": [1, 1]}

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from penstock.domain.cluster import Cluster
from penstock.domain.errors import InvalidPlan
from planner.enumeration import enumerate_paths
from planner.inputs import Profiles, gather_inputs
from planner.outlook import Gain, look_ahead, plannings
from planner.outlook_words import outlook_facts, outlook_text
from planner.planning import make_plan
from planner.relaxation import relax
from planner.sought import task_of
from planner.variants import as_planned, with_one_more, with_options, with_rates, with_slos
from tests.unit.planner.fleets import DIGITS, mixed_fleet


def priced(cluster: Cluster, *prices: float) -> Cluster:
    classes = tuple(
        replace(each, price_per_hour=price)
        for each, price in zip(cluster.gpu_classes, prices, strict=True)
    )
    return replace(cluster, gpu_classes=classes)


def fleet(**options: object) -> tuple[Cluster, Profiles]:
    cluster, profiles = mixed_fleet(slo_ms=45, **options)
    return priced(cluster, 4.0, 0.5), profiles


def test_gains_are_what_planning_again_finds() -> None:
    cluster, profiles = fleet()
    plan = make_plan(cluster, profiles)
    outlook = look_ahead(cluster, profiles, plan)
    fast, slow = outlook.classes
    for each in (fast, slow):
        again = make_plan(with_one_more(cluster, each.name), profiles)
        assert each.gain.found == pytest.approx(again.solve.value - plan.solve.value)
    longer = make_plan(with_slos(cluster, 1.1), profiles)
    (slos,) = outlook.slos
    assert slos.gain is not None
    assert slos.gain.found == pytest.approx(longer.solve.value - plan.solve.value)
    assert (fast.used_up, slow.used_up) == (True, False)
    assert outlook.next_gpu == "fast"
    assert outlook.next_gpu_per_price == "fast"
    assert slow.gain == Gain(found=0.0, most=0.0)


def test_the_shadow_price_is_the_relaxations_slope() -> None:
    cluster, profiles = mixed_fleet(slo_ms=120)
    plan = make_plan(cluster, profiles)
    outlook = look_ahead(cluster, profiles, plan)
    fast, slow = outlook.classes
    # All of it is priced: what the fleet is worth is the relaxation's optimum.
    assert fast.shadow_price + 3 * slow.shadow_price == pytest.approx(outlook.relaxed_value)


def test_with_a_price_cap_the_shadow_price_is_of_the_gpu_not_of_its_cost() -> None:
    cluster, profiles = fleet(max_price_per_hour=4.0)
    outlook = look_ahead(cluster, profiles, make_plan(cluster, profiles))
    # The cap leaves GPUs of either class unused, so that more of them are worth nothing.
    assert [each.shadow_price for each in outlook.classes] == pytest.approx([0.0, 0.0])
    assert outlook.next_gpu is None
    assert "no single GPU more gains anything" in outlook_text(
        outlook, make_plan(cluster, profiles)
    )


def test_cheaper_is_better_where_cost_is_sought() -> None:
    cluster, profiles = fleet()
    asked = with_options(with_rates(cluster, 100.0), {"objective": "least-cost"})
    plan = make_plan(asked, profiles)
    outlook = look_ahead(asked, profiles, plan)
    assert not outlook.maximise
    assert all(each.shadow_price >= 0 for each in outlook.classes)
    assert all(each.gain.found is not None and each.gain.found >= 0 for each in outlook.classes)
    assert "in per hour less than" in outlook_text(outlook, plan)


@pytest.mark.parametrize("objective", ["max-min", "least-cost"])
def test_using_a_gpu_costs_its_scarcity_and_its_price_where_that_is_sought(objective: str) -> None:
    cluster, profiles = fleet()
    asked = with_options(with_rates(cluster, 110.0), {"objective": objective})
    inputs = gather_inputs(asked, profiles)
    relaxation = relax(task_of(inputs), enumerate_paths(inputs, {DIGITS: 110.0}))
    assert relaxation is not None
    paid = {each.name: each.price_per_hour or 0.0 for each in asked.gpu_classes}
    for name, scarcity in relaxation.scarcity.items():
        sought = paid[name] if objective == "least-cost" else 0.0
        assert relaxation.price[name] == pytest.approx(scarcity + sought)
    assert sum(relaxation.scarcity.values()) > 0 or objective == "least-cost"


def test_every_planning_ticks() -> None:
    cluster, profiles = fleet()
    ticks: list[None] = []
    look_ahead(cluster, profiles, make_plan(cluster, profiles), tick=lambda: ticks.append(None))
    assert len(ticks) == plannings(cluster) == 4


def test_words_and_facts() -> None:
    cluster, profiles = fleet()
    plan = make_plan(cluster, profiles)
    outlook = look_ahead(cluster, profiles, plan)
    text = outlook_text(outlook, plan)
    assert "Binds: GPU class fast, 1 of 1 in use" in text
    assert "Binds: the SLO of digits; the tightest pipeline leaves 5.42 ms" in text
    assert "1 GPU more of fast   shadow price of the relaxation 125.0 (31.2 per unit" in text
    assert "planned again: gains 125.0, 31.2 per unit of price" in text
    assert text.splitlines()[-1] == (
        "The next GPU should be: fast, for the greatest gain; fast, for the greatest gain per price"
    )
    told = json.loads(json.dumps(outlook_facts(outlook, plan)))
    assert told["next_gpu"] == told["next_gpu_per_price"] == "fast"
    assert told["gpu_classes"][0]["gain_per_price"] == pytest.approx(125 / 4)


def test_options_are_those_the_plan_shows() -> None:
    cluster, profiles = fleet()
    made = with_options(cluster, {"slo_margin": 0.1, "packing": "per-stage"})
    plan = make_plan(made, profiles)
    same = as_planned(cluster, profiles, plan, "plan.json")
    assert make_plan(same, profiles).solve.value == pytest.approx(plan.solve.value)
    assert same.options.packing == "per-stage"
    assert same.models[0].margin_us == 4_500


def test_another_cluster_is_refused() -> None:
    cluster, profiles = fleet()
    plan = make_plan(cluster, profiles)
    with pytest.raises(InvalidPlan, match=r"plan\.json: inputs cluster"):
        as_planned(with_slos(cluster, 2), profiles, plan, "plan.json")


def test_a_margin_in_milliseconds_grows_with_its_slo() -> None:
    cluster, _ = fleet()
    held = replace(cluster, models=(replace(cluster.models[0], margin_us=10_000),))
    (model,) = with_slos(held, 1.5).models
    assert (model.slo_us, model.margin_us) == (67_500, 15_000)

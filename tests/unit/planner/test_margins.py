from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from penstock.arrivals import law_of
from penstock.domain.errors import Infeasible, InvalidSettings, PlanningFailed
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.domain.units import micros_from_seconds
from planner.margin_loop import as_found, plan_with_margins, with_margins
from planner.margins import (
    MARGINS,
    Margins,
    MarginSearch,
    Rates,
    Setting,
    Try,
    fitting_factor,
    promise,
)
from planner.planning import make_plan
from planner.verify import find_faults
from simulator.simulate import Scenario
from simulator.sustain import Trials
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.unit.planner.fleets import mixed_fleet

ONE, TWO = ModelName("one"), ModelName("two")


def a_promise(throughputs: Mapping[ModelName, float]) -> Plan:
    models = [
        replace(a_model_plan([a_pool(f"{name}-p0")], model=name), throughput_rps=rps)
        for name, rps in throughputs.items()
    ]
    plan = a_plan(*models)
    least = min(throughputs.values())
    return replace(plan, solve=replace(plan.solve, objective_rps=least, value=least, bound=least))


class World:
    """Models whose throughput grows as the margin shrinks, until too few come in time."""

    def __init__(self, right: Margins) -> None:
        self.right = right
        self.planned: list[Margins] = []

    def plan(self, setting: Setting) -> Plan:
        self.planned.append(setting.margins)
        return a_promise({name: 100 * (1 - setting.margins[name]) for name in self.right})

    def sustained(self, plan: Plan, least: float) -> Rates | None:
        margins = self.planned[-1]
        rates = {
            each.model: each.throughput_rps * (1.0 if margins[each.model] >= right else 0.5)
            for each, right in zip(plan.models, self.right.values(), strict=True)
        }
        return rates if min(rates.values()) > least else None


@pytest.mark.parametrize(
    "right", [{ONE: 0.2, TWO: 0.2}, {ONE: 0.1, TWO: 0.4}, {ONE: 0.4, TWO: 0.05}]
)
def test_every_model_gets_the_least_margin_that_keeps_its_promise(right: Margins) -> None:
    world = World(right)
    chosen = MarginSearch(world.plan, world.sustained, 1.3).run([ONE, TWO], 40, lambda: True)
    # The plan is as good as its worst model: that one's margin has to be right.
    worst = max(right, key=lambda name: right[name])
    assert chosen.margins[worst] == right[worst]
    assert chosen.plan.solve.objective_rps == pytest.approx(100 * (1 - right[worst]))
    assert all(one.setting != other.setting for one, other in pairwise(chosen.tries))


def test_the_search_keeps_to_its_bounds() -> None:
    world = World({ONE: 0.2, TWO: 0.2})
    told: list[Try] = []
    search = MarginSearch(world.plan, world.sustained, 1.3, told.append)
    chosen = search.run([ONE, TWO], 3, lambda: True)
    assert len(world.planned) == 3
    assert tuple(told) == chosen.tries
    world = World({ONE: 0.2, TWO: 0.2})
    MarginSearch(world.plan, world.sustained, 1.3).run([ONE, TWO], 40, lambda: False)
    assert len(world.planned) == 1  # one plan there has to be


def test_margins_without_a_plan_are_passed_over() -> None:
    world = World({ONE: 0.05})

    def plan(setting: Setting) -> Plan:
        if setting.margins[ONE] > 0.1:
            raise Infeasible("too slow")
        return world.plan(setting)

    chosen = MarginSearch(plan, world.sustained, 1.3).run([ONE], 40, lambda: True)
    assert chosen.margins == {ONE: 0.05}
    assert [each.planned_rps for each in chosen.tries][:2] == [None, None]


def test_nothing_that_is_sustained_is_an_error() -> None:
    world = World({ONE: 0.2})
    with pytest.raises(PlanningFailed, match="no margin"):
        MarginSearch(world.plan, lambda *_: {ONE: 0.0}, 1.3).run([ONE], 6, lambda: True)


def test_a_plan_promises_what_it_sustains_and_no_more() -> None:
    plan = a_promise({ONE: 100.0, TWO: 80.0})
    promised = promise(plan, {ONE: 90.0, TWO: 200.0}, 1.3)
    assert [each.throughput_rps for each in promised.models] == [90.0, 80.0]
    assert promised.solve.objective_rps == 80.0
    assert promise(plan, {ONE: 60.0, TWO: 80.0}, 1.3).solve.gap == pytest.approx(0.25)


def test_slower_batches_take_their_time_from_the_margin() -> None:
    plan = a_promise({ONE: 100.0})
    (model,) = plan.models
    (pipeline,) = model.pipelines
    model = replace(model, margin_us=model.slo_us - pipeline.latency_us)  # no room to spare
    (slower,) = promise(replace(plan, models=(model,)), {ONE: 50.0}, 1.3).models
    build_us = slower.pipelines[0].batch_build_us
    assert build_us >= 1.3 * 3 * 1_000_000 / 50  # three more samples for a batch of four
    assert slower.pipelines[0].latency_us + slower.margin_us <= max(
        model.slo_us, slower.pipelines[0].latency_us
    )
    assert slower.margin_us < model.margin_us


@pytest.mark.parametrize("rate", [50.0, 7.0, 0.3])
def test_batches_that_gather_too_slowly_for_the_slo_are_not_counted_on(rate: float) -> None:
    plan = a_promise({ONE: 100.0})
    factor = fitting_factor(plan, {ONE: rate}, 1.3)
    (model,) = promise(plan, {ONE: rate}, factor).models
    (pipeline,) = model.pipelines
    assert pipeline.latency_us <= model.slo_us
    assert 0 <= factor <= 1.3
    if factor < 1.3:  # and no more was given up than had to be
        waiting_us = 3 * 1_000_000 / rate
        assert pipeline.latency_us + 2e-4 * waiting_us >= model.slo_us


def test_the_loop_finds_a_verified_plan_that_sustains_more_than_the_usual_margin() -> None:
    cluster, profiles = mixed_fleet()
    trials = Trials(
        law=law_of("poisson"), span_us=micros_from_seconds(4), target=0.99, scenario=Scenario()
    )
    tries: list[Try] = []
    chosen = plan_with_margins(
        cluster, profiles, trials, blocks_digests={}, seconds=60, on_try=tries.append
    )
    assert set(chosen.margins.values()) <= set(MARGINS)
    best = max(each.sustained_weighted_rps for each in tries)
    assert chosen.plan.solve.objective_rps <= best * (1 + 1e-9)
    assert chosen.plan.solve.objective_rps > 0.9 * best
    fleet = as_found(cluster, chosen)
    assert not list(find_faults(chosen.plan, fleet, profiles))
    usual = make_plan(with_margins(cluster, dict.fromkeys(chosen.margins, 0.4)), profiles)
    least = min(
        trial.load * usual.model(name).throughput_rps / usual.model(name).weight
        for name in chosen.margins
        if (trial := trials.greatest(usual, name, usual.model(name).throughput_rps))
    )
    assert chosen.plan.solve.objective_rps >= least


def test_only_max_min_has_margins_to_be_found() -> None:
    cluster, profiles = mixed_fleet()
    cluster = replace(cluster, options=replace(cluster.options, objective="fewest-gpus"))
    trials = Trials(
        law=law_of("poisson"), span_us=micros_from_seconds(1), target=0.99, scenario=Scenario()
    )
    with pytest.raises(InvalidSettings, match="max-min"):
        plan_with_margins(cluster, profiles, trials, blocks_digests={}, seconds=1)

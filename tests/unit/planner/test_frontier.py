from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from penstock.domain.errors import Infeasible
from planner import frontier
from planner.frontier import cost_frontier, slo_curve
from planner.planning import make_plan
from planner.study_words import curve_table, frontier_table
from planner.variants import Planned, try_plan, with_options, with_rates, with_slos
from tests.unit.planner.fleets import mixed_fleet
from tests.unit.planner.test_outlook import priced


def test_the_curve_is_the_plan_at_each_scale() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    points = list(slo_curve(cluster, profiles, [0.2, 1.0, 2.0], time_limit_s=30))
    assert [each.scale for each in points] == [0.2, 1.0, 2.0]
    for point in points[1:]:
        scaled = with_slos(cluster, point.scale)
        assert point.pooled.found == pytest.approx(make_plan(scaled, profiles).solve.value)
        whole = make_plan(scaled, profiles, partition=False)
        assert point.whole.found == pytest.approx(whole.solve.value)
    nothing = points[0].pooled
    assert (nothing.found, nothing.infeasible) == (None, True)
    assert "the fastest path" in nothing.why
    assert curve_table(points).splitlines()[:3] == [
        "SLO ×  in stages (samples/s)  whole (samples/s)",
        "  0.2                no plan  no plan",
        "    1                  125.0  62.5",
    ]


def test_the_frontier_is_the_least_cost_of_each_level() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    cluster = priced(cluster, 4.0, 0.5)
    points = list(cost_frontier(cluster, profiles, 3, time_limit_s=30))
    most = make_plan(cluster, profiles).solve.objective_rps
    levels = [each.level_rps for each in points]
    assert levels == pytest.approx([most, most * 2 / 3, most / 3], rel=1e-5)
    spent = [each.spent for each in points if each.spent is not None]
    assert len(spent) == 3
    assert spent == sorted(spent, reverse=True)
    for point in points:
        asked = with_options(with_rates(cluster, point.level_rps), {"objective": "least-cost"})
        assert point.spent == pytest.approx(make_plan(asked, profiles).solve.value)
        assert (point.infeasible, point.why) == (False, "")
        assert point.bound is not None
        assert point.spent is not None
        assert point.bound <= point.spent + 1e-6
        cost = point.gpus[cluster.gpu_classes[0].name] * 4.0
        assert point.spent == pytest.approx(cost + point.gpus[cluster.gpu_classes[1].name] * 0.5)
    assert frontier_table(points).splitlines()[-1].strip().startswith(f"{most:.1f}")


def failing_at(monkeypatch: pytest.MonkeyPatch, failures: Mapping[int, Planned]) -> None:
    """Let planning end otherwise at some levels, counted from the greatest."""
    calls = count()

    def tried(*fleet: Any, **options: Any) -> Planned:
        failed = failures.get(next(calls))
        return try_plan(*fleet, **options) if failed is None else failed

    monkeypatch.setattr(frontier, "try_plan", tried)


IN_VAIN = Planned(plan=None, why="no plan was found in time")
IMPOSSIBLE = Planned(plan=None, infeasible=True, why="infeasible: model digits: SLO")


def test_levels_without_a_plan_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    cluster = priced(cluster, 4.0, 0.5)
    expected = list(cost_frontier(cluster, profiles, 4, time_limit_s=30))
    failing_at(monkeypatch, {0: IN_VAIN, 2: IMPOSSIBLE})
    points = list(cost_frontier(cluster, profiles, 4, time_limit_s=30))
    for at in (0, 2):
        assert (points[at].spent, points[at].bound, points[at].gpus) == (None, None, {})
        assert points[at].level_rps == expected[at].level_rps
    assert [each.infeasible for each in points] == [False, False, True, False]
    assert (points[0].why, points[2].why) == (IN_VAIN.why, IMPOSSIBLE.why)
    assert [points[1], points[3]] == [expected[1], expected[3]]
    _, low, middle, _, high = frontier_table(points).splitlines()
    assert "per hour" in low
    assert middle.strip().endswith("no plan  infeasible: model digits: SLO")
    assert high.strip().endswith("none in time  no plan was found in time")


def test_a_dearer_plan_than_that_of_a_higher_level_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    cluster = priced(cluster, 4.0, 0.5)
    above, _ = cost_frontier(cluster, profiles, 2, time_limit_s=30)
    dearest = make_plan(cluster, profiles)
    dearer = tuple(replace(each, price_per_hour=9.0) for each in dearest.gpu_classes)
    failing_at(monkeypatch, {1: Planned(plan=replace(dearest, gpu_classes=dearer))})
    _, point = cost_frontier(cluster, profiles, 2, time_limit_s=30)
    assert (point.spent, point.gpus) == (above.spent, above.gpus)


def test_without_prices_gpus_are_counted() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    (point,) = cost_frontier(cluster, profiles, 1, time_limit_s=30)
    assert point.unit == "gpus"
    assert point.spent == sum(point.gpus.values())


def test_rates_asked_for_are_not_looked_at() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    asked = replace(cluster, models=(replace(cluster.models[0], rate_rps=1e6),))
    (point,) = cost_frontier(asked, profiles, 1, time_limit_s=30)
    assert point.level_rps == pytest.approx(
        make_plan(cluster, profiles).solve.objective_rps, rel=1e-5
    )


def test_a_fleet_that_cannot_serve_has_no_frontier() -> None:
    with pytest.raises(Infeasible):
        list(cost_frontier(*mixed_fleet(slo_ms=5), 2, time_limit_s=10))

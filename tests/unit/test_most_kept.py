from __future__ import annotations

from dataclasses import replace

import pytest

from bench.fleets import A100, L4, T4, Shape, make_fleet
from bench.most_kept import MostKept, most_kept
from bench.replan import Change, kept, plan_of
from penstock.domain.cluster import PlannerOptions
from planner.replan import running_stages

SHAPE = Shape(kinds=(A100, L4, T4), reference=L4, batches=(1, 2), shares=(1, 2), models=2, blocks=3)
OPTIONS = PlannerOptions(max_stages=2, max_batch=2, relative_gap=0.02, time_limit_s=10.0)


@pytest.mark.parametrize(("wanted", "told"), [(5, True), (6, None), (8, None), (9, False)])
def test_what_is_allowed_is_known_from_both_sides(wanted: int, told: bool | None) -> None:
    assert MostKept(at_least=5, at_most=8).allows(wanted) is told


def test_all_can_be_kept_where_nothing_changes_and_no_plan_keeps_more_than_is_proven() -> None:
    cluster, profiles = make_fleet(12, SHAPE, OPTIONS, seed=1)
    before = plan_of(cluster, profiles).plan
    running = running_stages(before)
    same = most_kept(cluster, profiles, running, before.solve.value * (1 - 1e-6), 5.0)
    assert same.at_most == sum(running.values())
    changed = Change(model=0, factor=1.3).of(cluster)
    options = replace(changed.options, time_limit_s=3.0)
    beside = plan_of(replace(changed, options=options), profiles, running).plan
    proven = most_kept(changed, profiles, running, beside.solve.value, 5.0)
    assert kept(beside, running) <= proven.at_most
    assert proven.at_least <= proven.at_most <= sum(running.values())

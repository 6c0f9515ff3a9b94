"""Batches that are split and gathered on their way, by hand and by chance.

A stage takes 10, 12, 14, 16 ms for 1 to 4 samples.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.arrivals import Arrival
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from penstock.policies import BATCHING
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import BatchFinished, Event
from simulator.disturbances import Outage, Straggler
from simulator.fleet import planned_downtimes
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.uneven import an_uneven_plan
from tests.unit.simulator.test_failures import (
    OFFERED,
    SECOND_US,
    _check_computations,
    _check_ends,
    _Checked,
    arrivals,
    computed,
    latencies,
)


def run(plan: Plan, samples: int, *outages: Outage, detection_us: int = 0) -> Simulation:
    scenario = Scenario(fail=outages, detection_us=detection_us)
    return simulate_plan(plan, arrivals(0, samples=samples), SECOND_US, scenario)


def test_a_batch_is_split_and_gathered() -> None:
    result = run(an_uneven_plan((4, 2, 4), (1, 2, 1), hop_us=500), 4)
    assert computed(result) == [
        ("p0/0", 500, 16_500),
        ("p1/0", 17_000, 29_000),
        ("p1/1", 17_000, 29_000),
        ("p2/0", 29_500, 45_500),
    ]
    assert [(each.stage, each.samples) for each in result.intervals] == [
        (0, 4),
        (1, 2),
        (1, 2),
        (2, 4),
    ]
    assert latencies(result) == [46_000]


def test_rows_cross_the_network_as_they_were_booked() -> None:
    result = run(an_uneven_plan((4, 2), (1, 2), transfer_us=1_000), 4)
    assert computed(result)[1:] == [("p1/0", 18_000, 30_000), ("p1/1", 20_000, 32_000)]
    result = run(an_uneven_plan((2, 4), (2, 1), transfer_us=1_000), 4)
    assert computed(result)[2:] == [("p1/0", 16_000, 32_000)]
    assert latencies(result) == [32_000]


def test_an_odd_batch_has_smaller_parts() -> None:
    result = run(an_uneven_plan((6, 4, 2), (1, 1, 1)), 5)
    assert Counter((each.stage, each.samples) for each in result.intervals) == {
        (0, 5): 1,
        (1, 4): 1,
        (1, 1): 1,
        (2, 2): 2,
        (2, 1): 1,
    }
    assert latencies(result) == [68_000]


def test_each_computation_is_credited_with_its_own_samples() -> None:
    result = run(an_uneven_plan((4, 2), (1, 2)), 3)
    assert list(result.intervals.useful) == [3, 2, 1]


def test_a_part_lost_in_mid_batch_is_done_again_with_all_of_it() -> None:
    result = run(an_uneven_plan((4, 2), (1, 2)), 4, Outage("p1/1", 20_000), detection_us=1_000)
    assert computed(result) == [
        ("p0/0", 0, 16_000),
        ("p1/0", 16_000, 28_000),  # in vain: it was running when the loss was heard of
        ("p1/1", 16_000, 20_000),
        ("p0/0", 21_000, 37_000),
        ("p1/0", 37_000, 49_000),
        ("p1/0", 49_000, 61_000),
    ]
    assert latencies(result) == [61_000]


def test_a_part_that_waits_for_rows_that_are_lost_is_not_run() -> None:
    result = run(an_uneven_plan((2, 4), (2, 1)), 4, Outage("p0/1", 5_000), detection_us=1_000)
    assert [each for each in computed(result) if each[0] == "p1/0"] == [("p1/0", 36_000, 52_000)]


PLANS = st.builds(
    an_uneven_plan,
    st.lists(st.integers(1, 6), min_size=3, max_size=3),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
    transfer_us=st.sampled_from([0, 1_500]),
    hop_us=st.sampled_from([0, 300]),
    fixed_us=st.just(2_000),
    slo_us=st.just(80_000),
    batch_build_us=st.sampled_from([0, 5_000]),
).map(
    lambda plan: replace(
        plan, gpu_classes=tuple(replace(each, gpus_per_server=2) for each in plan.gpu_classes)
    )
)
OUTAGES = st.builds(
    Outage,
    st.sampled_from(["p0/0", "p1/0", "p2/0", "fast-0", "fast-1"]),
    st.integers(0, 120_000),
    st.none() | st.integers(1, 60_000),
)
SCENARIOS = st.builds(
    Scenario,
    batching=st.sampled_from(sorted(BATCHING)),
    jitter_sigma=st.sampled_from([0.0, 0.3]),
    straggler=st.none() | st.just(Straggler(0.2, 5)),
    fail=st.lists(OUTAGES, max_size=4).map(tuple),
    detection_us=st.sampled_from([0, 700, 20_000]),
    wire_factor=st.sampled_from([0.5, 1.0, 3.0]),
)


@given(PLANS, OFFERED, SCENARIOS)
def test_each_request_ends_exactly_once_whatever_fails(
    plan: Plan, offered: list[Arrival], scenario: Scenario
) -> None:
    with patch("simulator.simulate.Dispatcher", _Checked):
        result = simulate_plan(plan, offered, 150_000, scenario)
    _check_ends(offered, result)
    _check_computations(result, planned_downtimes(result.gpus, scenario.fail))


class _Watched(Dispatcher):
    """Notes by how much answers differ from what was predicted at the launch."""

    errors_us: ClassVar[list[int]] = []

    def handle(self, now_us: Micros, event: Event) -> list[Effect]:
        if isinstance(event, BatchFinished):
            self.errors_us.append(now_us - self._flights[event.batch].completion_us)
        return super().handle(now_us, event)


@pytest.mark.parametrize("batches", [(4, 2), (2, 4), (4, 1, 2), (4, 2, 4)])
@pytest.mark.parametrize("gap_us", [6_000, 11_000])
def test_undisturbed_each_batch_is_answered_when_it_was_predicted(
    batches: tuple[int, ...], gap_us: int
) -> None:
    plan = an_uneven_plan(batches, [2] * len(batches), transfer_us=300, hop_us=200)
    offered = arrivals(*range(0, SECOND_US, gap_us))
    with (
        patch("simulator.simulate.Dispatcher", _Watched),
        patch.object(_Watched, "errors_us", list[int]()) as errors_us,
    ):
        result = simulate_plan(plan, offered, SECOND_US, Scenario())
    assert result.summary().attainment == 1.0
    assert set(errors_us) == {0}

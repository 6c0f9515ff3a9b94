"""Failures by hand, and by chance: no request is lost whatever fails."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.arrivals import Arrival
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event
from penstock.scheduling.invariants import validate
from simulator.disturbances import Outage, Straggler
from simulator.fleet import Downtime, gpus_of, planned_downtimes
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000


def arrivals(*instants_us: int, samples: int = 1) -> list[Arrival]:
    return [Arrival(arrival_us=at_us, model=MODEL, samples=samples) for at_us in instants_us]


def one_stage(instances: int = 1, hop_us: int = 0) -> Plan:
    """Batches of one that take 10 ms, each instance on a server of its own."""
    pool = a_pool(latencies_us=(10_000,), instances=instances)
    return a_plan(a_model_plan([pool]), hop_us=hop_us)


def two_stages() -> Plan:
    """10 ms, 5 ms on the wire, 20 ms."""
    first = a_pool("p0", latencies_us=(10_000,))
    last = a_pool("p1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(20_000,))
    return a_plan(a_model_plan([first, last], transfer_us=5_000))


def run(plan: Plan, offered: list[Arrival], *outages: Outage, detection_us: int = 0) -> Simulation:
    scenario = Scenario(fail=outages, detection_us=detection_us)
    return simulate_plan(plan, offered, SECOND_US, scenario)


def latencies(result: Simulation) -> list[int | None]:
    return [each.latency_us for each in result.outcomes]


def computed(result: Simulation) -> list[tuple[str, int, int]]:
    return [(each.instance, each.start_us, each.end_us) for each in result.intervals]


def test_what_an_instance_ran_is_run_again_when_it_is_back() -> None:
    result = run(one_stage(), arrivals(0), Outage("p0/0", 5_000, 20_000))
    assert latencies(result) == [35_000]
    assert computed(result) == [("p0/0", 0, 5_000), ("p0/0", 25_000, 35_000)]
    assert result.losses == 1
    assert result.queues[MODEL] == {0: SECOND_US - 20_000, 1: 20_000}


def test_until_a_failure_is_heard_of_nothing_is_done_about_it() -> None:
    result = run(one_stage(2), arrivals(0), Outage("p0/0", 5_000), detection_us=3_000)
    assert latencies(result) == [18_000]
    assert computed(result) == [("p0/0", 0, 5_000), ("p0/1", 8_000, 18_000)]


def test_batches_sent_to_an_instance_that_is_gone_come_back_when_that_is_heard_of() -> None:
    result = run(one_stage(2), arrivals(2_000), Outage("p0/0", 1_000), detection_us=10_000)
    assert latencies(result) == [19_000]
    assert computed(result) == [("p0/1", 11_000, 21_000)]


def test_a_batch_on_its_way_to_an_instance_that_fails_goes_to_another() -> None:
    result = run(one_stage(2, hop_us=1_000), arrivals(0), Outage("p0/0", 500), detection_us=2_000)
    assert latencies(result) == [14_500]
    assert computed(result) == [("p0/1", 3_500, 13_500)]


def test_a_batch_that_was_sent_to_an_earlier_life_is_not_taken_by_the_next() -> None:
    result = run(one_stage(hop_us=3_000), arrivals(0), Outage("p0/0", 1_000, 500))
    # Sent anew when the instance is back, at 1.5 ms; the first one reaches nobody at 3 ms.
    assert latencies(result) == [1_500 + 3_000 + 10_000 + 3_000]
    assert computed(result) == [("p0/0", 4_500, 14_500)]


def test_an_instance_that_is_back_before_its_failure_was_heard_of_tells_both_at_once() -> None:
    offered = arrivals(0, 200_000)
    result = run(one_stage(), offered, Outage("p0/0", 5_000, 10_000), detection_us=50_000)
    # Nothing more is heard of the failure at 55 ms: its next life is not taken for lost.
    assert latencies(result) == [25_000, 10_000]


def test_what_waits_at_an_instance_is_lost_with_what_runs() -> None:
    result = run(one_stage(2), arrivals(0, 0, 0), Outage("p0/0", 5_000))
    # The third went to p0/0 too, behind the first, or waited for either: p0/1 does all in turn.
    assert sorted(each or 0 for each in latencies(result)) == [10_000, 20_000, 30_000]


def test_without_a_sound_instance_requests_end_as_unavailable() -> None:
    result = run(one_stage(), arrivals(0, 50_000), Outage("p0/0", 5_000))
    assert [each.cause for each in result.outcomes] == ["unavailable", "unavailable"]
    assert result.intervals[0].end_us == 5_000


def test_outages_that_overlap_last_as_long_as_any_of_them() -> None:
    outages = Outage("p0/0", 5_000, 10_000), Outage("fast-0", 10_000, 20_000)
    result = run(one_stage(), arrivals(0), *outages)
    assert latencies(result) == [40_000]
    assert result.losses == 1


def test_a_server_fails_with_all_its_gpus() -> None:
    plan = one_stage(4)
    wide = tuple(replace(each, gpus_per_server=2) for each in plan.gpu_classes)
    result = run(replace(plan, gpu_classes=wide), arrivals(0, 0, 0, 0), Outage("fast-1", 5_000))
    assert result.losses == 2
    cut = [each.instance for each in result.intervals if each.end_us == 5_000]
    assert cut == ["p0/2", "p0/3"]
    assert latencies(result) == [10_000, 10_000, 20_000, 20_000]


def test_what_was_not_sent_whole_is_lost_with_its_sender() -> None:
    result = run(two_stages(), arrivals(0), Outage("p0/0", 12_000, 1_000))
    # The stage has been reported, so nothing tells the dispatcher that the batch will not come.
    assert [each.cause for each in result.outcomes] == ["deadline"]
    assert computed(result) == [("p0/0", 0, 10_000)]


def test_what_was_sent_whole_is_not() -> None:
    result = run(two_stages(), arrivals(0), Outage("p0/0", 15_000))
    assert latencies(result) == [35_000]


def test_what_was_sent_to_a_receiver_that_fails_is_done_again_from_the_start() -> None:
    result = run(two_stages(), arrivals(0), Outage("p1/0", 12_000, 8_000))
    assert latencies(result) == [20_000 + 35_000]
    assert computed(result) == [
        ("p0/0", 0, 10_000),
        ("p0/0", 20_000, 30_000),
        ("p1/0", 35_000, 55_000),
    ]


def test_a_batch_whose_next_instance_is_gone_is_not_put_on_the_wire() -> None:
    result = run(two_stages(), arrivals(0), Outage("p1/0", 2_000, 3_000), detection_us=60_000)
    # Heard of at 5 ms, when it is back: what runs at p0/0 until then is done in vain.
    assert latencies(result) == [10_000 + 35_000]
    begun = [each[:2] for each in computed(result)]
    assert begun == [("p0/0", 0), ("p0/0", 10_000), ("p1/0", 25_000)]


def test_what_cannot_be_sent_keeps_no_lane() -> None:
    first = a_pool("p0", latencies_us=(2_000,))
    last = a_pool(
        "p1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(20_000,), instances=2
    )
    plan = a_plan(a_model_plan([first, last], transfer_us=6_000))
    result = run(plan, arrivals(0, 0), Outage("p1/0", 1_000), detection_us=20_000)
    # The second is sent from 4 to 10 ms; the first, heard of at 21, again from 23 to 29.
    assert computed(result)[2:] == [
        ("p1/1", 10_000, 30_000),
        ("p0/0", 21_000, 23_000),
        ("p1/1", 30_000, 50_000),
    ]


class _Checked(Dispatcher):
    """Looks at its own state after each event."""

    def handle(self, now_us: Micros, event: Event) -> list[Effect]:
        effects = super().handle(now_us, event)
        validate(self)
        return effects


def _fleet() -> Plan:
    """Two pipelines that share nothing, one of two stages; two GPUs to a server."""
    first = a_pool("p0", latencies_us=(4_000, 6_000), instances=2)
    last = a_pool(
        "p1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(7_000, 9_000), instances=3
    )
    alone = a_pool("p2", blocks=(0, 2), latencies_us=(15_000, 20_000))
    model = a_model_plan([first, last], [alone], slo_us=60_000, transfer_us=1_500)
    plan = a_plan(model, hop_us=300)
    classes = tuple(replace(each, gpus_per_server=2) for each in plan.gpu_classes)
    return replace(plan, gpu_classes=classes)


TARGETS = ["p0/0", "p0/1", "p1/0", "p1/2", "p2/0", "fast-0", "fast-1", "slow-0", "slow-1:0"]
INSTANTS = st.integers(0, 120_000)
OUTAGES = st.builds(Outage, st.sampled_from(TARGETS), INSTANTS, st.none() | st.integers(1, 60_000))
OFFERED = st.lists(
    st.builds(
        Arrival,
        arrival_us=INSTANTS,
        model=st.just(MODEL),
        samples=st.integers(1, 4),
        slo_us=st.none() | st.integers(1_000, 150_000),
    ),
    max_size=40,
).map(lambda found: sorted(found, key=lambda each: each.arrival_us))
SCENARIOS = st.builds(
    Scenario,
    batching=st.sampled_from(["reservation", "published", "fixed:timeout_us=3000", "nexus"]),
    routing=st.sampled_from(["least-queueing", "round-robin"]),
    jitter_sigma=st.sampled_from([0.0, 0.3]),
    straggler=st.none() | st.just(Straggler(0.2, 5)),
    fail=st.lists(OUTAGES, max_size=8).map(tuple),
    detection_us=st.sampled_from([0, 700, 20_000]),
    wire_factor=st.sampled_from([0.5, 1.0, 3.0]),
    seed=st.integers(0, 3),
)


@given(OFFERED, SCENARIOS)
def test_each_request_ends_exactly_once_whatever_fails(
    offered: list[Arrival], scenario: Scenario
) -> None:
    with patch("simulator.simulate.Dispatcher", _Checked):
        result = simulate_plan(_fleet(), offered, 150_000, scenario)
    _check_ends(offered, result)
    _check_computations(result, planned_downtimes(result.gpus, scenario.fail))


@pytest.mark.parametrize("seed", range(4))
def test_each_request_ends_exactly_once_where_all_fail_by_chance(seed: int) -> None:
    offered = arrivals(*range(0, SECOND_US, 2_000))
    scenario = Scenario(
        mtbf_us=100_000, mttr_us=40_000, detection_us=5_000, jitter_sigma=0.1, seed=seed
    )
    result = simulate_plan(_fleet(), offered, SECOND_US, scenario)
    _check_ends(offered, result)
    assert result.losses > 20
    assert 0.1 < result.summary().attainment < 0.95


def _check_ends(offered: list[Arrival], result: Simulation) -> None:
    ended = sorted((each.arrival_us, each.samples) for each in result.outcomes)
    assert ended == sorted((each.arrival_us, each.samples) for each in offered)


def _check_computations(result: Simulation, downtimes: list[Downtime]) -> None:
    """Check that an instance does one thing at a time, and nothing while it is down."""
    busy: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for each in result.intervals:
        busy[each.instance].append((each.start_us, each.end_us))
    for downtime in downtimes:
        until_us = downtime.at_us + (downtime.lasts_us or SECOND_US * 100)
        for instance in downtime.instances:
            for start_us, end_us in busy[instance]:
                assert end_us <= downtime.at_us or start_us >= until_us
    for intervals in busy.values():
        for before, after in pairwise(sorted(intervals)):
            assert before[1] <= after[0]


def test_every_name_that_may_fail_is_there() -> None:
    assert planned_downtimes(gpus_of(_fleet()), [Outage(each, 0) for each in TARGETS])

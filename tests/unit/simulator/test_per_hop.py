"""Every stage for itself, by hand and beside the reservation."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from penstock.arrivals import poisson
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidInput, InvalidSettings, UnknownName
from penstock.domain.plan import Plan
from simulator.per_hop import Relay, stage_policy
from simulator.run_log import run_log
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool, a_request

SECOND_US = 1_000_000


def two_stages(wire_us: int = 1_000, hop_us: int = 0) -> Plan:
    """One instance of 4 + 2b ms, then one of 6 + 4b ms; batches of 2."""
    first = a_pool("p0", latencies_us=(6_000, 8_000))
    second = a_pool("p1", position=1, blocks=(1, 2), latencies_us=(10_000, 14_000))
    model = a_model_plan([first, second], transfer_us=wire_us, throughput_rps=2 / 0.014)
    return a_plan(model, hop_us=hop_us)


def run(plan: Plan, at_us: list[int], policy: str, slo_us: int | None = None) -> Simulation:
    arrivals = [Arrival(arrival_us=each, model=MODEL, slo_us=slo_us) for each in at_us]
    return simulate_plan(plan, arrivals, SECOND_US, Scenario(batching=policy))


def test_batches_are_made_anew_at_each_stage() -> None:
    result = run(two_stages(), [0, 1_000], "per-hop:nexus")
    # Each alone at first: [0, 6) and [6, 12); the second waits for stage two, busy in [7, 17).
    assert [(each.samples, each.start_us, each.end_us) for each in result.intervals] == [
        (1, 0, 6_000),
        (1, 6_000, 12_000),
        (1, 7_000, 17_000),
        (1, 17_000, 27_000),
    ]
    assert [each.latency_us for each in result.outcomes] == [17_000, 26_000]
    three = run(two_stages(), [0, 1_000, 2_000], "per-hop:nexus")
    assert [each.samples for each in three.intervals] == [1, 2, 1, 2]  # bound apart, then together


def test_a_stage_leaves_time_for_what_is_still_to_come() -> None:
    relay = Relay(two_stages(hop_us=500))
    asked = a_request(1, slo_us=50_000)
    first = relay.first(asked)
    # To come: the wire beyond the hand-over, two hand-overs, and 10 ms alone.
    assert first.deadline_us == 50_000 - (500 + 1_000 + 10_000)
    second = relay.next(first, two_stages().models[0].pools[0].id, 7_000)
    assert second is not None
    assert (second.arrival_us, second.deadline_us) == (7_500, 50_000)
    assert relay.next(second, two_stages().models[0].pools[1].id, 20_000) is None
    assert relay.ended(second) == asked


def test_one_that_is_dropped_on_the_way_counts_as_it_was_asked() -> None:
    result = run(two_stages(), [0, 0, 0, 0], "per-hop:nexus", slo_us=30_000)
    assert len(result.outcomes) == 4
    assert {each.slo_us for each in result.outcomes} == {30_000}
    assert {each.model for each in result.outcomes} == {MODEL}
    assert 0 < result.summary().in_time < 4


@pytest.mark.parametrize("policy", ["nexus", "reservation", "fixed:size=2"])
def test_half_the_load_is_met_under_any_policy(policy: str) -> None:
    plan = two_stages()
    at_us = list(poisson(70, 10 * SECOND_US, random.Random(3)))
    arrivals = [Arrival(arrival_us=each, model=MODEL) for each in at_us]
    scenario = Scenario(batching=f"per-hop:{policy}")
    summary = simulate_plan(plan, arrivals, 10 * SECOND_US, scenario).summary()
    assert summary.requests == len(at_us)
    assert summary.attainment > 0.99


def test_requests_of_several_samples_are_refused() -> None:
    arrivals = [Arrival(arrival_us=0, model=MODEL, samples=2)]
    with pytest.raises(InvalidInput, match="per-hop: samples: expected 1 for each request"):
        simulate_plan(two_stages(), arrivals, SECOND_US, Scenario(batching="per-hop:nexus"))


def test_the_policy_of_the_stages_has_to_exist() -> None:
    assert stage_policy("nexus") is None
    with pytest.raises(UnknownName, match="best"):
        Scenario(batching="per-hop:best").check()


def test_stages_for_themselves_are_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with (
        pytest.raises(InvalidSettings, match="--run-log: policy: expected a policy for whole"),
        run_log(path, "per-hop:nexus", "least-queueing"),
    ):
        pass
    assert not path.exists()

"""Every policy on the same fleets at half of the planned load: what its source would promise."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import median

import pytest

from penstock.arrivals import poisson
from penstock.domain.arrivals import Arrival
from penstock.domain.plan import Plan
from penstock.policies import BATCHING, ROUTING
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool
from tests.support.driving import linear
from tests.support.uneven import an_uneven_plan

SPAN_US = 20_000_000


def one_stage() -> Plan:
    """Two instances that take 10 + 2 b ms: 8 samples in 26 ms, 615 requests/s."""
    pool = a_pool(latencies_us=linear(8, fixed_us=10_000, each_us=2_000), instances=2)
    return a_plan(a_model_plan([pool], throughput_rps=16 / 0.026))


def two_stages() -> Plan:
    """A quick stage before a slow one: 4 samples in 20 ms, 200 requests/s."""
    first = a_pool("p0", latencies_us=linear(4, fixed_us=2_000, each_us=1_000))
    second = a_pool(
        "p1", position=1, blocks=(1, 2), latencies_us=linear(4, fixed_us=8_000, each_us=3_000)
    )
    model = a_model_plan(
        [first, second], transfer_us=200, batch_build_us=10_000, throughput_rps=200
    )
    return a_plan(model, hop_us=200)


def two_classes() -> Plan:
    """A fast pipeline of 200 and a slow one of 100 requests/s, at batches of 4."""
    fast = a_pool("fast", latencies_us=linear(4, fixed_us=8_000, each_us=3_000))
    slow = a_pool("slow", gpu_class="slow", latencies_us=linear(4, fixed_us=16_000, each_us=6_000))
    model = a_model_plan([fast], [slow], throughput_rps=300)
    rated = zip(model.pipelines, (200.0, 100.0), strict=True)
    pipelines = tuple(replace(each, throughput_rps=rate) for each, rate in rated)
    return a_plan(replace(model, pipelines=pipelines))


def uneven() -> Plan:
    """Batches of 4, split into 2 and gathered again: 4 samples in 20 ms, 2 in 14 ms."""
    plan = an_uneven_plan(
        (4, 2, 4), (1, 2, 1), transfer_us=200, hop_us=200, each_us=3_000, batch_build_us=10_000
    )
    model = replace(plan.models[0], throughput_rps=200.0)
    return replace(plan, models=(model,))


def at_load(
    plan: Plan, load: float, batching: str, routing: str = "least-queueing", jitter: float = 0.0
) -> Simulation:
    instants = poisson(load * plan.models[0].throughput_rps, SPAN_US, random.Random(1))
    arrivals = [Arrival(arrival_us=at_us, model=MODEL) for at_us in instants]
    scenario = Scenario(batching=batching, routing=routing, jitter_sigma=jitter, seed=1)
    return simulate_plan(plan, arrivals, SPAN_US, scenario)


@pytest.mark.parametrize(
    "plan", [one_stage(), two_stages(), uneven()], ids=["one-stage", "two-stages", "uneven"]
)
@pytest.mark.parametrize("batching", sorted(BATCHING))
def test_half_the_planned_load_is_met(batching: str, plan: Plan) -> None:
    assert at_load(plan, 0.5, batching).summary().attainment > 0.99


@pytest.mark.parametrize("routing", sorted(ROUTING))
def test_half_the_planned_load_of_a_mixed_fleet_is_met(routing: str) -> None:
    assert at_load(two_classes(), 0.5, "nexus", routing).summary().attainment > 0.99


@pytest.mark.parametrize("batching", sorted(BATCHING))
def test_jitter_costs_little(batching: str) -> None:
    assert at_load(one_stage(), 0.5, batching, jitter=0.1).summary().attainment > 0.99


@pytest.mark.parametrize("batching", ["reservation", "nexus", "proteus"])
def test_what_overload_leaves_is_served_in_time(batching: str) -> None:
    summary = at_load(one_stage(), 1.2, batching).summary()
    assert summary.attainment > 0.97 / 1.2
    assert summary.in_time == summary.answered


def test_a_last_moment_needs_a_margin_where_durations_vary() -> None:
    bare = at_load(one_stage(), 0.03, "proteus", jitter=0.1).summary().attainment
    kept = at_load(one_stage(), 0.03, "proteus:safety_us=6000", jitter=0.1).summary().attainment
    assert bare < 0.98
    assert kept > 0.999


@pytest.mark.parametrize(
    ("batching", "load", "violated", "median_ms", "busy"),
    [
        ("proteus", 0.3, 0.000, 68, 0.36),
        ("nexus", 0.3, 0.000, 21, 0.88),
        ("proteus", 0.95, 0.024, 70, 0.93),
        ("nexus", 0.95, 0.016, 58, 1.00),
    ],
)
def test_an_independent_simulation_of_the_two_rules_agrees(
    batching: str, load: float, violated: float, median_ms: float, busy: float
) -> None:
    # One device, 10 + 2 b ms, up to 16 samples, SLO 100 ms; figures over 60,000 requests.
    pool = a_pool(latencies_us=linear(16, fixed_us=10_000, each_us=2_000))
    plan = a_plan(a_model_plan([pool], throughput_rps=16 / 0.042))
    result = at_load(plan, load, batching)
    latencies = [each.latency_us for each in result.outcomes if each.latency_us is not None]
    assert 1 - result.summary().attainment == pytest.approx(violated, abs=0.012)
    assert median(latencies) / 1_000 == pytest.approx(median_ms, abs=2)
    assert result.utilisation()["p0/0"] == pytest.approx(busy, abs=0.02)

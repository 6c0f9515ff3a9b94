"""Transfers between servers, by hand: one lane up and one down per network card."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.domain.arrivals import Arrival
from penstock.domain.plan import Plan
from simulator.simulate import Scenario, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000


def fleet(*, senders: int, receivers: int, first_us: int, last_us: int, wire_us: int) -> Plan:
    first = a_pool("p0", latencies_us=(first_us,), instances=senders)
    last = a_pool(
        "p1",
        position=1,
        blocks=(1, 2),
        gpu_class="slow",
        latencies_us=(last_us,),
        instances=receivers,
    )
    return a_plan(a_model_plan([first, last], transfer_us=wire_us))


def latencies(plan: Plan, requests: int, scenario: Scenario | None = None) -> list[int | None]:
    offered = [Arrival(arrival_us=0, model=MODEL)] * requests
    result = simulate_plan(plan, offered, SECOND_US, scenario or Scenario())
    return [each.latency_us for each in result.outcomes]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        # 10 ms each at three senders at once; then one after the other into the one downlink.
        (1.0, [10_000 + 4_000 + 1_000, 10_000 + 8_000 + 1_000, 10_000 + 12_000 + 1_000]),
        (1.5, [10_000 + 6_000 + 1_000, 10_000 + 12_000 + 1_000, 10_000 + 18_000 + 1_000]),
        (0.25, [10_000 + 1_000 + 1_000, 10_000 + 2_000 + 1_000, 10_000 + 3_000 + 1_000]),
    ],
)
def test_many_senders_share_the_downlink_of_one_receiver(
    factor: float, expected: list[int]
) -> None:
    plan = fleet(senders=3, receivers=1, first_us=10_000, last_us=1_000, wire_us=4_000)
    assert latencies(plan, 3, Scenario(wire_factor=factor)) == expected


def test_many_receivers_share_the_uplink_of_one_sender() -> None:
    plan = fleet(senders=1, receivers=2, first_us=2_000, last_us=20_000, wire_us=6_000)
    # Sent from 2 to 8 ms, and from 8 to 14 ms though the second receiver waits since 4 ms.
    assert latencies(plan, 2) == [28_000, 34_000]


def test_both_directions_of_a_card_are_apart() -> None:
    """Two pipelines that cross: each server sends to the other, at the same time."""
    there = [
        a_pool("a0", latencies_us=(10_000,)),
        a_pool("a1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(10_000,)),
    ]
    back = [
        a_pool("b0", gpu_class="slow", latencies_us=(10_000,)),
        a_pool("b1", position=1, blocks=(1, 2), latencies_us=(10_000,)),
    ]
    plan = a_plan(a_model_plan(there, back, transfer_us=8_000))
    classes = tuple(replace(each, gpus_per_server=2) for each in plan.gpu_classes)
    result = simulate_plan(
        replace(plan, gpu_classes=classes),
        [Arrival(arrival_us=0, model=MODEL)] * 2,
        SECOND_US,
        Scenario(routing="round-robin"),
    )
    assert {each.instance for each in result.intervals} == {"a0/0", "a1/0", "b0/0", "b1/0"}
    assert [each.latency_us for each in result.outcomes] == [28_000, 28_000]


def test_a_wire_that_costs_nothing_waits_for_no_lane() -> None:
    plan = fleet(senders=2, receivers=2, first_us=10_000, last_us=1_000, wire_us=0)
    assert latencies(plan, 2, Scenario(wire_factor=1_000)) == [11_000, 11_000]

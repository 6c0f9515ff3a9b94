"""Proteus' waiting rule, worked out for Tproc(b) = 10 + 2 b ms and an SLO of 100 ms.

Tmax_wait(q + 1) = Texp(1) - Tproc(q + 1): with the first request at 0, one queued request is held
until 100 - 14 = 86 ms, two until 84 ms, three until 82 ms.
"""

from __future__ import annotations

from penstock.domain.plan import Plan
from penstock.policies.batching.proteus import ProteusPolicy
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.driving import Drive, linear

LATENCIES = linear(4, fixed_us=10_000, each_us=2_000)


def device() -> Plan:
    return a_plan(a_model_plan([a_pool(latencies_us=LATENCIES)]))


def test_an_idle_device_waits_until_one_more_request_would_be_too_late() -> None:
    drive = Drive(device(), ProteusPolicy)
    drive.arrive(0)
    drive.until(200_000)
    assert drive.launches == [(86_000, 1)]
    assert drive.in_time == [0]


def test_an_arrival_moves_the_last_moment() -> None:
    drive = Drive(device(), ProteusPolicy)
    drive.arrive(0)
    drive.arrive(50_000)
    drive.until(200_000)
    assert drive.launches == [(84_000, 2)]  # answered at 98 ms
    assert drive.in_time == [0, 1]


def test_an_arrival_that_moves_it_into_the_past_starts_the_batch() -> None:
    drive = Drive(device(), ProteusPolicy)
    drive.arrive(0)
    drive.arrive(50_000)
    drive.arrive(83_000)  # before 84 ms, after 82 ms
    drive.until(200_000)
    assert drive.launches == [(83_000, 3)]  # answered at 99 ms
    assert drive.late == []


def test_the_largest_batch_runs_at_once() -> None:
    drive = Drive(device(), ProteusPolicy)
    for at_us in (0, 1_000, 2_000, 3_000):
        drive.arrive(at_us)
    drive.until(200_000)
    assert drive.launches == [(3_000, 4)]


def test_a_device_that_comes_free_waits_again() -> None:
    drive = Drive(device(), ProteusPolicy)
    drive.arrive(0, 4)  # until 18 ms
    drive.arrive(10_000, 2)
    drive.until(200_000)
    assert drive.launches == [(0, 4), (110_000 - 16_000, 2)]


def test_a_head_that_a_batch_of_all_would_answer_too_late_is_dropped() -> None:
    drive = Drive(device(), ProteusPolicy)
    drive.arrive(0, 4)
    drive.arrive(1_000, slo_us=30_000)
    drive.arrive(2_000, 2)
    drive.until(200_000)
    # At 18 ms three would end at 34 ms, too late for the deadline at 31 ms.
    assert drive.drops == [(18_000, 4)]
    assert drive.launches == [(0, 4), (102_000 - 16_000, 2)]


def test_a_margin_for_clocks_that_are_not_simulated() -> None:
    drive = Drive(device(), lambda: ProteusPolicy(safety_us=6_000))
    drive.arrive(0)
    drive.until(200_000)
    assert drive.launches == [(80_000, 1)]

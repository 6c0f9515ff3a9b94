"""Nexus' early drop, on the latency model of its paper.

SOSP 2019: a batch of b takes b * alpha + beta. With alpha = 1 ms and beta = 25 ms, a batch of 25
takes 50 ms, half of an SLO of 100 ms, and the device sustains 500 requests/s.
"""

from __future__ import annotations

from penstock.domain.plan import Plan
from penstock.policies.batching.nexus import NexusPolicy
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.driving import Drive, linear

LATENCIES = linear(25, fixed_us=25_000, each_us=1_000)


def one_device() -> Plan:
    return a_plan(a_model_plan([a_pool(latencies_us=LATENCIES)]))


def test_the_window_slides_past_requests_that_a_full_batch_would_answer_too_late() -> None:
    drive = Drive(one_device(), NexusPolicy)
    drive.arrive(0)
    drive.arrive(0, 10, slo_us=60_000)
    drive.arrive(0, 30)
    drive.until(200_000)
    # Alone: 26 ms. Then 25 end at 76 ms: too late for the ten, whom lazy dropping would have
    # served in a batch of 9 (34 ms). The five left end at 76 + 30 ms: too late for one of them...
    assert drive.launches[:2] == [(0, 1), (26_000, 25)]
    assert drive.drops[:10] == [(26_000, number) for number in range(1, 11)]
    # ... and for all: even alone it would take until 102 ms.
    assert drive.drops[10:] == [(76_000, number) for number in range(36, 41)]
    assert drive.in_time == [0, *range(11, 36)]
    assert drive.late == []


def test_the_window_shrinks_with_the_queue() -> None:
    drive = Drive(one_device(), NexusPolicy)
    drive.arrive(0)
    drive.arrive(0, 13, slo_us=60_000)
    drive.until(200_000)
    # At 26 ms, 13 would end at 64, 12 at 63, 11 at 62, 10 at 61 and 9 at 60 ms: in time.
    assert drive.launches == [(0, 1), (26_000, 9)]
    assert drive.drops == [(26_000, number) for number in (1, 2, 3, 4)]


def test_a_free_device_waits_for_no_one() -> None:
    drive = Drive(one_device(), NexusPolicy)
    drive.arrive(5_000)
    drive.arrive(40_000)
    drive.until(200_000)
    assert drive.launches == [(5_000, 1), (40_000, 1)]


def test_the_window_may_be_smaller_than_planned() -> None:
    drive = Drive(one_device(), lambda: NexusPolicy(size=4))
    drive.arrive(0, 9)
    drive.until(200_000)
    assert drive.launches == [(0, 1), (26_000, 4), (55_000, 4)]


def test_the_planned_rate_is_kept_up_when_twice_as_much_is_asked_for() -> None:
    drive = Drive(one_device(), NexusPolicy)
    for at_us in range(0, 2_000_000, 1_000):  # 1000 requests/s
        drive.arrive(at_us)
    drive.until(3_000_000)
    assert len(drive.in_time) > 0.98 * 1_000
    assert drive.late == []


def test_a_head_is_dropped_only_if_no_pipeline_can_save_it() -> None:
    slow = a_pool("slow", gpu_class="slow", latencies_us=(50_000,))
    fast = a_pool("fast", latencies_us=(10_000,))
    drive = Drive(a_plan(a_model_plan([slow], [fast])), NexusPolicy)
    drive.arrive(0, 2, slo_us=20_000)
    drive.until(200_000)
    assert drive.pipelines == ["m.1", "m.1"]
    assert drive.in_time == [0, 1]

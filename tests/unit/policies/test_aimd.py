"""Clipper's AIMD, on the numbers of its paper and prototype.

Paper (NSDI 2017): latency objective 20 ms; a batch over it backs the size off by 10 %. Prototype:
steps of 2 below 90 % of the objective, no change between that and the objective.
"""

from __future__ import annotations

from penstock.domain.ids import PipelineId
from penstock.domain.plan import Plan
from penstock.policies.batching.aimd import AimdPolicy
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool
from tests.support.driving import Drive, linear


def one_container(each_us: int, size: int = 20) -> Plan:
    pool = a_pool(latencies_us=linear(size, fixed_us=0, each_us=each_us))
    return a_plan(a_model_plan([pool]))


def clipper() -> AimdPolicy:
    return AimdPolicy(objective_us=20_000)


def test_steps_of_two_end_within_a_tenth_of_the_objective() -> None:
    drive = Drive(one_container(2_000), clipper)
    drive.arrive(0, 60, slo_us=1_000_000)
    drive.until(1_000_000)
    # 7 samples take 14 ms: up. 9 take 18 ms, which is not below 90 % of 20 ms: stay.
    assert drive.launches[:7] == [
        (0, 1),
        (2_000, 3),
        (8_000, 5),
        (18_000, 7),
        (32_000, 9),
        (50_000, 9),
        (68_000, 9),
    ]


def test_a_batch_over_the_objective_backs_off_by_a_tenth() -> None:
    drive = Drive(one_container(2_300), clipper)
    drive.arrive(0, 60, slo_us=1_000_000)
    drive.until(1_000_000)
    # 9 samples take 20.7 ms: down to 8 (8.1), which take 18.4 ms: stay.
    assert drive.sizes[:8] == [1, 3, 5, 7, 9, 8, 8, 8]


def test_one_sample_is_the_least_however_slow() -> None:
    drive = Drive(one_container(30_000), clipper)
    drive.arrive(0, 5, slo_us=1_000_000)
    drive.until(1_000_000)
    assert drive.sizes == [1, 1, 1, 1, 1]


def test_the_objective_is_the_slo_unless_it_is_given() -> None:
    drive = Drive(one_container(10_000), AimdPolicy)
    drive.arrive(0, 12, slo_us=100_000)
    drive.until(1_000_000)
    # 1 sample takes 10 of 100 ms and 3 take 30: up. 5 end at 90 ms; the last 3 wait no longer.
    assert drive.launches == [(0, 1), (10_000, 3), (40_000, 5), (90_000, 3)]


def test_a_free_container_takes_what_is_queued_and_small_batches_prove_nothing() -> None:
    policy = clipper()
    drive = Drive(one_container(1_000), lambda: policy)
    drive.arrive(0, 20, slo_us=1_000_000)
    drive.until(100_000)
    assert drive.sizes == [1, 3, 5, 7, 4]
    assert policy.cap(PipelineId(f"{MODEL}.0")) == 9
    for at_us in range(100_000, 110_000, 2_000):
        drive.arrive(at_us)
    drive.until(200_000)
    assert drive.sizes[5:] == [1, 1, 1, 1, 1]  # at once: nothing waits for a batch to fill
    assert policy.cap(PipelineId(f"{MODEL}.0")) == 9


def test_the_cap_stops_at_the_planned_batch() -> None:
    drive = Drive(one_container(1_000, size=4), clipper)
    drive.arrive(0, 20, slo_us=1_000_000)
    drive.until(1_000_000)
    assert drive.sizes == [1, 3, 4, 4, 4, 4]


def test_delayed_batching_holds_a_batch_below_the_cap() -> None:
    drive = Drive(one_container(1_000), lambda: AimdPolicy(objective_us=20_000, delay_us=2_000))
    drive.arrive(0)  # a full batch, as the cap is 1
    drive.arrive(10_000)
    drive.arrive(11_000)
    drive.until(100_000)
    assert drive.launches == [(0, 1), (12_000, 2)]


def test_what_expires_in_the_queue_is_dropped() -> None:
    drive = Drive(one_container(30_000), clipper)
    drive.arrive(0, 2, slo_us=20_000)
    drive.until(100_000)
    assert drive.launches == [(0, 1)]
    assert drive.drops == [(20_000, 1)]

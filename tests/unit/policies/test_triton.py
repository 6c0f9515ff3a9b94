"""Triton's dynamic batcher, on the configuration of its user guide.

max_batch_size: 8
dynamic_batching { preferred_batch_size: [ 4, 8 ], max_queue_delay_microseconds: 100 }
"""

from __future__ import annotations

from penstock.domain.plan import Plan
from penstock.policies.batching.triton import TritonPolicy
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.driving import Drive, linear

LATENCIES = linear(8, fixed_us=800, each_us=100)  # 8 take 1.6 ms


def model(instances: int = 1) -> Plan:
    return a_plan(a_model_plan([a_pool(latencies_us=LATENCIES, instances=instances)]))


def guide() -> TritonPolicy:
    return TritonPolicy(preferred=(4, 8), max_queue_delay_us=100)


def test_a_preferred_size_is_executed_at_once() -> None:
    drive = Drive(model(), guide)
    for at_us in (0, 10, 20, 30):
        drive.arrive(at_us)
    drive.until(10_000)
    assert drive.launches == [(30, 4)]


def test_other_sizes_are_held_until_the_oldest_request_has_waited_for_the_delay() -> None:
    drive = Drive(model(), guide)
    for at_us in (0, 40, 90):
        drive.arrive(at_us)
    drive.until(10_000)
    assert drive.launches == [(100, 3)]


def test_with_more_than_a_preferred_size_the_largest_that_fits_goes_and_the_rest_is_held() -> None:
    drive = Drive(model(instances=2), guide)
    drive.arrive(0, 3)
    drive.arrive(100)  # the three are due first: this one starts a batch of its own
    drive.arrive(150, 4)
    drive.until(10_000)
    # Of the four at 150 us, three make a batch of four with the one; the last is held until both
    # instances are free, which is long after its delay.
    assert drive.launches == [(100, 3), (150, 4), (1_200, 1)]


def test_the_batch_grows_while_every_instance_is_busy() -> None:
    drive = Drive(model(), guide)
    drive.arrive(0, 4)  # busy until 1.2 ms
    drive.arrive(1_050, 2)
    drive.arrive(1_150, 4)
    drive.until(10_000)
    # Six wait at 1.2 ms and the oldest for 150 us: past the delay, all of them go.
    assert drive.launches == [(0, 4), (1_200, 6)]


def test_a_preferred_size_goes_first_while_the_delay_has_not_passed() -> None:
    drive = Drive(model(), guide)
    drive.arrive(0, 4)
    drive.arrive(1_150, 6)
    drive.until(10_000)
    # Six wait at 1.2 ms, none for 100 us yet: four go, the other two when the instance is free.
    assert drive.launches == [(0, 4), (1_200, 4), (2_400, 2)]


def test_more_than_a_batch_is_launched_as_a_batch() -> None:
    drive = Drive(model(), guide)
    drive.arrive(0, 4)
    drive.arrive(1_190, 11)
    drive.until(10_000)
    assert drive.launches == [(0, 4), (1_200, 8), (2_800, 3)]


def test_the_default_makes_batches_as_large_as_possible_without_delay() -> None:
    drive = Drive(model(), TritonPolicy)
    drive.arrive(0)
    drive.arrive(100, 5)
    drive.arrive(300, 5)
    drive.until(10_000)
    assert drive.launches == [(0, 1), (900, 8), (2_500, 2)]


def test_a_delay_without_preferred_sizes_waits_for_the_largest_batch() -> None:
    drive = Drive(model(), lambda: TritonPolicy(max_queue_delay_us=500))
    drive.arrive(0, 7)
    drive.arrive(200)
    drive.arrive(3_000, 4)
    drive.until(10_000)
    assert drive.launches == [(200, 8), (3_500, 4)]


def test_preferred_sizes_beyond_the_planned_batch_are_ignored() -> None:
    drive = Drive(model(), lambda: TritonPolicy(preferred=(16,), max_queue_delay_us=500))
    drive.arrive(0, 8)
    drive.until(10_000)
    assert drive.launches == [(0, 8)]


def test_a_request_past_its_timeout_is_rejected() -> None:
    drive = Drive(model(), guide)
    drive.arrive(0, 4)
    drive.arrive(100, slo_us=700)
    drive.until(10_000)
    assert drive.drops == [(800, 4)]


def test_the_delay_counts_from_the_oldest_arrival_not_from_the_earliest_deadline() -> None:
    drive = Drive(model(), guide)
    drive.arrive(0)
    drive.arrive(60, slo_us=5_000)
    drive.until(10_000)
    assert drive.launches == [(100, 2)]

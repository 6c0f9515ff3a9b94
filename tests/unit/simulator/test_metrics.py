"""Figures beside the outcomes, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from penstock.domain.arrivals import Arrival
from penstock.domain.ids import BatchId, InstanceId, PoolId
from penstock.domain.outcomes import Interval
from penstock.domain.plan import Plan
from simulator.disturbances import Outage, ProfileError
from simulator.metrics import (
    QueueSummary,
    batch_sizes,
    busy_by_class,
    class_uses,
    cost,
    mean_batch,
    queue_summary,
)
from simulator.record import Computations, QueueLengths
from simulator.report import class_table, summary_json
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000


def one_pool(latencies_us: Sequence[int] = (10_000,), share: Fraction = Fraction(1)) -> Plan:
    return a_plan(a_model_plan([a_pool(latencies_us=latencies_us, share=share)]))


def one(at_us: int, *, samples: int = 1, slo_us: int | None = None) -> Arrival:
    return Arrival(arrival_us=at_us, model=MODEL, samples=samples, slo_us=slo_us)


def run(plan: Plan, *offered: Arrival, scenario: Scenario | None = None) -> Simulation:
    return simulate_plan(plan, offered, SECOND_US, scenario or Scenario())


def test_only_what_lies_between_warm_up_and_end_of_load_counts() -> None:
    offered = one(495_000), one(700_000), one(995_000)
    result = run(one_pool(), *offered, scenario=Scenario(warmup_us=500_000))
    # Half of the first computation, all of the second and half of the third, in half a second.
    assert result.utilisation() == {"p0/0": pytest.approx(20_000 / 500_000)}
    (use,) = class_uses(one_pool(), result)
    assert (use.gpus, use.used) == (8, 1)
    assert use.utilisation == pytest.approx(20_000 / 500_000 / 8)
    assert use.useful_utilisation == use.utilisation
    assert batch_sizes(result) == {"p0": {1: 2}}
    assert sum(result.queues[MODEL].values()) == 500_000
    assert busy_by_class(one_pool(), result.intervals) == {"fast": 30_000}


def test_a_run_that_is_ended_early_is_counted_up_to_there() -> None:
    plan = one_pool()
    offered = [one(0), one(100_000, slo_us=5_000), one(200_000)]
    result = simulate_plan(plan, offered, SECOND_US, Scenario(), most_misses=0)
    assert result.window_us == (0, 100_000)
    assert result.utilisation() == {"p0/0": pytest.approx(0.1)}


def test_an_instance_that_did_nothing_is_told_too() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=(10_000,), instances=2)]))
    assert run(plan, one(0)).utilisation() == {"p0/0": 0.01, "p0/1": 0.0}


def test_shares_count_as_the_part_of_a_gpu_that_they_are() -> None:
    plan = one_pool(share=Fraction(1, 4))
    (use,) = class_uses(plan, run(plan, one(0)))
    assert use.utilisation == pytest.approx(0.01 / 4 / 8)


def test_a_batch_is_as_useful_as_the_part_of_it_that_was_in_time() -> None:
    plan = one_pool((10_000, 10_000))
    scenario = Scenario(
        batching="fixed:size=2,timeout_us=50000", profile_error=ProfileError(factor=1.5)
    )
    result = run(plan, one(0, slo_us=12_000), one(0), scenario=scenario)
    assert [each.in_time for each in result.outcomes] == [False, True]
    (use,) = class_uses(plan, result)
    assert use.utilisation == pytest.approx(0.015 / 8)
    assert use.useful_utilisation == pytest.approx(0.0075 / 8)


@pytest.mark.parametrize(("slo_us", "useful_us"), [(60_000, 25_000), (24_000, 0)])
def test_all_batches_of_a_large_request_are_useful_or_none_is(slo_us: int, useful_us: int) -> None:
    # 15 ms for two samples, then 10 ms for the third; believed to take four fifths of that.
    plan = one_pool((8_000, 12_000))
    scenario = Scenario(profile_error=ProfileError(factor=1.25))
    result = run(plan, one(0, samples=3, slo_us=slo_us), scenario=scenario)
    assert [each.latency_us for each in result.outcomes] == [25_000]
    (use,) = class_uses(plan, result)
    assert use.utilisation * 8 * SECOND_US == pytest.approx(25_000)
    assert use.useful_utilisation * 8 * SECOND_US == pytest.approx(useful_us)


def test_what_was_lost_was_of_no_use() -> None:
    plan = one_pool()
    result = run(plan, one(0), scenario=Scenario(fail=(Outage("p0/0", 4_000, 1_000),)))
    (use,) = class_uses(plan, result)
    assert use.utilisation * 8 * SECOND_US == pytest.approx(14_000)
    assert use.useful_utilisation * 8 * SECOND_US == pytest.approx(10_000)


def test_waiting_samples_are_counted_over_time() -> None:
    scenario = Scenario(batching="fixed:size=4,timeout_us=5000")
    plan = one_pool((1_000, 1_000, 1_000, 1_000))
    offered = one(0, samples=2), one(3_000), one(500_000, samples=4)
    result = run(plan, *offered, scenario=scenario)
    # Two for 3 ms, three until the first has waited for 5; four leave at once.
    assert result.queues[MODEL] == {0: SECOND_US - 5_000, 2: 3_000, 3: 2_000}
    assert batch_sizes(result) == {"p0": {3: 1, 4: 1}}


def test_queue_lengths_are_clipped_to_their_window() -> None:
    queue = QueueLengths(100, 200)
    queue.note(50, 7)
    queue.note(120, 3)
    queue.note(120, 9)
    queue.note(130, 9)
    queue.note(150, 1)
    assert queue.closed(500) == {1: 50, 7: 20, 9: 30}
    assert QueueLengths(100, 200).closed(40) == {}


def test_quantiles_of_a_queue_weigh_by_time() -> None:
    found = queue_summary({0: 500, 1: 449, 4: 41, 9: 10})
    assert found.mean == pytest.approx((449 + 164 + 90) / 1_000)
    assert (found.p50, found.p95, found.p99, found.most) == (0, 4, 4, 9)
    assert queue_summary({}) == QueueSummary(mean=0, p50=0, p95=0, p99=0, most=0)


def test_batches_of_several_pools_have_one_mean() -> None:
    assert mean_batch([{1: 3, 4: 1}, {2: 2}]) == pytest.approx(11 / 6)
    assert mean_batch([{}]) is None


def test_costs_are_those_of_the_gpus_in_use() -> None:
    plan = one_pool()
    priced = replace(
        plan, gpu_classes=tuple(replace(each, price_per_hour=3.6) for each in plan.gpu_classes)
    )
    late = one(1_000, slo_us=5_000)
    found = cost(priced, run(priced, one(0), late, one(500_000)))
    assert found is not None
    assert found.per_hour == pytest.approx(3.6)
    # A second of one GPU is 0.001; two samples were in time.
    assert found.per_million_in_time == pytest.approx(500)
    nothing = cost(priced, run(priced))
    assert nothing is not None
    assert nothing.per_million_in_time is None
    assert cost(plan, run(plan, one(0))) is None


def test_without_prices_reports_say_nothing_of_costs() -> None:
    plan = one_pool()
    result = run(plan, one(0))
    assert "cost" not in summary_json(plan, result)
    assert class_table(plan, result).caption == ""


def test_computations_read_as_intervals() -> None:
    kept = Computations((InstanceId("a"), InstanceId("b")))
    assert kept.begin(1, 0, BatchId(7), 3, 10, 20) == 0
    assert kept.begin(0, 1, BatchId(8), 1, 15, 30) == 1
    first = Interval(
        instance=InstanceId("b"), stage=0, batch=BatchId(7), samples=3, start_us=10, end_us=20
    )
    assert (kept[0], kept[-2], len(kept)) == (first, first, 2)
    assert list(kept) == [first, kept[1]]
    assert kept[:1] == [first]
    with pytest.raises(IndexError):
        kept[2]
    kept.count_useful(0, 2)
    assert kept.busy_us(12, 18) == ([3, 6], [0, 4])
    assert (kept.last_end_us(), Computations().last_end_us()) == (30, 0)


def test_what_a_whole_batch_was_good_for_counts_for_all_its_computations() -> None:
    kept = Computations((InstanceId("a"),))
    for batch in (0, 2, 2, 5):
        kept.begin(0, 0, BatchId(batch), 4, 10, 20)
    kept.count_batch_useful(BatchId(2), 1)
    kept.count_batch_useful(BatchId(2), 3)
    kept.count_useful(3, 4)
    assert list(kept.useful) == [0, 3, 3, 4]


def test_a_computation_can_end_early_but_not_late() -> None:
    kept = Computations((InstanceId("a"),))
    for place in range(2):
        kept.begin(0, 0, BatchId(place), 1, 10, 20)
    kept.cut_short(0, 15)
    kept.cut_short(1, 25)
    assert list(kept.end_us) == [15, 20]
    columns = (kept.instance, kept.stage, kept.batch, kept.samples, kept.useful, kept.start_us)
    assert [list(each) for each in columns] == [[0, 0], [0, 0], [0, 1], [1, 1], [0, 0], [10, 10]]


def test_pools_without_a_batch_are_listed() -> None:
    assert batch_sizes(run(one_pool())) == {PoolId("p0"): {}}

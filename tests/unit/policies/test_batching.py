"""Batching policies seen through the dispatcher that asks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penstock.domain.ids import BatchId
from penstock.domain.plan import Plan
from penstock.domain.requests import DropReason
from penstock.policies.batching.fixed import FixedPolicy
from penstock.policies.batching.reservation import ReservationPolicy
from penstock.policies.routing.earliest_completion import EarliestCompletion
from penstock.policies.routing.least_queueing import LeastQueueing
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import DropRequest, Effect, RunBatch, WakeAt
from penstock.scheduling.events import PlanApplied, RequestArrived, StageFinished, WakeUp
from penstock.scheduling.ports import BatchingPolicy, RoutingPolicy
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request, all_joined
from tests.support.driving import Drive
from tests.support.uneven import an_uneven_plan


def ready(
    plan: Plan,
    batching: Callable[[], BatchingPolicy],
    routing: Callable[[], RoutingPolicy] = LeastQueueing,
) -> Dispatcher:
    dispatcher = Dispatcher(batching, routing)
    dispatcher.handle(0, PlanApplied(plan))
    for joined in all_joined(plan):
        dispatcher.handle(0, joined)
    return dispatcher


def arrive(dispatcher: Dispatcher, now_us: int, number: int, slo_us: int = 100_000) -> list[Effect]:
    request = a_request(number, arrival_us=now_us, slo_us=slo_us)
    return dispatcher.handle(now_us, RequestArrived(request))


def sizes(effects: list[Effect]) -> list[int]:
    return [len(each.slices) for each in effects if isinstance(each, RunBatch)]


def two_stages() -> Plan:
    """A quick first stage before a slow second one."""
    first = a_pool("p0", latencies_us=(5_000, 6_000))
    second = a_pool("p1", position=1, blocks=(1, 2), latencies_us=(20_000, 30_000))
    return a_plan(a_model_plan([first, second]))


def test_reservation_keeps_a_batch_open_while_a_later_stage_is_busy() -> None:
    dispatcher = ready(two_stages(), lambda: ReservationPolicy(bind_lead=0.0))
    assert sizes(arrive(dispatcher, 0, 0)) == [1]
    dispatcher.handle(5_000, StageFinished(batch=BatchId(0), stage=0, compute_us=5_000))
    # The first stage is idle; the second is busy until 25 ms: two leave at 19 ms early enough.
    effects = arrive(dispatcher, 6_000, 1)
    assert sizes(effects) == []
    assert WakeAt(19_000) in effects
    arrive(dispatcher, 10_000, 2)
    assert sizes(dispatcher.handle(19_000, WakeUp())) == [2]


def test_reservation_leads_by_a_part_of_the_batch_s_own_work() -> None:
    dispatcher = ready(two_stages(), lambda: ReservationPolicy(bind_lead=0.2))
    arrive(dispatcher, 0, 0)
    effects = arrive(dispatcher, 6_000, 1)
    assert WakeAt(19_000 - 7_200) in effects  # the work of two is 36 ms


def test_reservation_runs_a_small_batch_where_small_batches_sustain_as_much() -> None:
    # No gain from batching at all: one sample is worth its time.
    pool = a_pool(latencies_us=(10_000, 20_000, 30_000, 40_000))
    dispatcher = ready(
        a_plan(a_model_plan([pool])), lambda: ReservationPolicy(spare=0.0, bind_lead=0.0)
    )
    arrive(dispatcher, 0, 0)
    for number in range(1, 6):
        arrive(dispatcher, 0, number, slo_us=25_000)
    done = StageFinished(batch=BatchId(0), stage=0, compute_us=10_000)
    assert sizes(dispatcher.handle(10_000, done)) == [1]


def test_reservation_prefers_the_next_head_to_a_batch_that_starves_others() -> None:
    pool = a_pool(latencies_us=(10_000, 11_000, 12_000, 13_000))
    dispatcher = ready(
        a_plan(a_model_plan([pool])), lambda: ReservationPolicy(spare=0.0, bind_lead=0.0)
    )
    arrive(dispatcher, 0, 0)
    assert sizes(arrive(dispatcher, 0, 1, slo_us=20_500)) == []
    arrive(dispatcher, 0, 2)
    # Two would be done at 21 ms; alone it would halve the rate.
    effects = dispatcher.handle(10_000, WakeUp())
    assert [(each.request, each.reason) for each in effects if isinstance(each, DropRequest)] == [
        (1, DropReason.DEADLINE)
    ]


def test_fixed_launches_a_full_batch_at_once_and_a_part_after_its_timeout() -> None:
    pool = a_pool(latencies_us=(10_000, 12_000), instances=2)
    drive = Drive(a_plan(a_model_plan([pool])), lambda: FixedPolicy(timeout_us=5_000))
    for at_us in (0, 1_000, 2_000):
        drive.arrive(at_us)
    drive.until(50_000)
    assert drive.launches == [(1_000, 2), (7_000, 1)]


def test_fixed_takes_a_smaller_size_if_told_and_drops_only_the_expired() -> None:
    pool = a_pool(latencies_us=(10_000, 12_000, 14_000))
    dispatcher = ready(a_plan(a_model_plan([pool])), lambda: FixedPolicy(size=2, timeout_us=50_000))
    arrive(dispatcher, 0, 0, slo_us=1_000)
    effects = dispatcher.handle(1_000, WakeUp())
    assert [each.reason for each in effects if isinstance(each, DropRequest)] == [
        DropReason.DEADLINE
    ]
    arrive(dispatcher, 2_000, 1, slo_us=3_000)  # cannot be met; fixed does not know
    assert sizes(arrive(dispatcher, 2_000, 2)) == [2]


def test_earliest_completion_takes_the_faster_pipeline_even_if_it_queues() -> None:
    fast = a_pool("fast", latencies_us=(10_000,))
    slow = a_pool("slow", gpu_class="slow", latencies_us=(50_000,))
    plan = a_plan(a_model_plan([slow], [fast]))
    dispatcher = ready(plan, FixedPolicy, EarliestCompletion)
    (run,) = (each for each in arrive(dispatcher, 0, 0) if isinstance(each, RunBatch))
    assert run.route[0].instance == "fast/0"
    effects = arrive(dispatcher, 0, 1)
    assert effects[-1] == WakeAt(10_000)  # waits for the fast one although the slow one is idle


def test_fixed_keeps_a_batch_open_while_a_later_stage_is_busy() -> None:
    dispatcher = ready(two_stages(), lambda: FixedPolicy(timeout_us=0))
    assert sizes(arrive(dispatcher, 0, 0)) == [1]
    dispatcher.handle(5_000, StageFinished(batch=BatchId(0), stage=0, compute_us=5_000))
    # The second stage is busy until 25 ms. One sample reaches it then if it leaves at 20 ms, two at
    # 19 ms; they may queue there for 15 % of their 25 and 36 ms of work.
    assert arrive(dispatcher, 6_000, 1)[-1] == WakeAt(16_250)
    assert sizes(arrive(dispatcher, 13_000, 2)) == []
    assert sizes(dispatcher.handle(13_599, WakeUp())) == []
    assert sizes(dispatcher.handle(13_600, WakeUp())) == [2]


def test_fixed_counts_its_timeout_from_the_oldest_not_from_the_most_urgent() -> None:
    pool = a_pool(latencies_us=(10_000, 12_000, 14_000))
    dispatcher = ready(a_plan(a_model_plan([pool])), lambda: FixedPolicy(timeout_us=5_000))
    arrive(dispatcher, 0, 0)
    assert WakeAt(5_000) not in arrive(dispatcher, 3_000, 1, slo_us=50_000)
    assert sizes(dispatcher.handle(5_000, WakeUp())) == [2]


def test_reservation_gathers_no_longer_than_what_it_does_in_parts_leaves() -> None:
    # The plan promises 80 ms, 60 of them for gathering. Two parts of 12 ms, one after the other,
    # and 16 ms for the whole leave 40.
    plan = an_uneven_plan((2, 4), (1, 1), fixed_us=8_000, each_us=2_000, batch_build_us=60_000)
    (model,) = plan.models
    promised = tuple(replace(each, latency_us=80_000) for each in model.pipelines)
    plan = replace(plan, models=(replace(model, pipelines=promised),))
    drive = Drive(plan, lambda: ReservationPolicy(spare=0.0, bind_lead=0.0))
    drive.arrive(0, slo_us=200_000)
    drive.until(150_000)
    assert drive.launches == [(40_000, 1)]

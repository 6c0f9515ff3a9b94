"""The dispatcher's behaviour, one event at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.domain.plan import Plan
from penstock.domain.requests import DropReason, Slice
from penstock.policies.batching.reservation import ReservationPolicy
from penstock.policies.routing.least_queueing import LeastQueueing
from penstock.scheduling.dispatcher import Dispatcher, DispatcherLimits
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    PartHop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    RequestCancelled,
    StageFinished,
    WakeUp,
)
from penstock.scheduling.invariants import validate
from tests.support.builders import a_model_plan, a_plan, a_pool, a_request, all_joined
from tests.support.uneven import an_uneven_plan

LATENCIES_US = (10_000, 12_000, 14_000, 16_000)


def eager() -> ReservationPolicy:
    return ReservationPolicy(spare=0.0, bind_lead=0.0)


class Bench:
    """A dispatcher with a plan and ready instances, validated after every event."""

    def __init__(self, plan: Plan | None = None, limits: DispatcherLimits | None = None) -> None:
        self.plan = plan or a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US)]))
        self.dispatcher = Dispatcher(eager, LeastQueueing, limits)
        self.feed(0, PlanApplied(self.plan))
        for joined in all_joined(self.plan):
            self.feed(0, joined)

    def feed(self, now_us: int, event: Event) -> list[Effect]:
        effects = self.dispatcher.handle(now_us, event)
        validate(self.dispatcher)
        return effects

    def arrive(
        self, now_us: int, number: int, *, slo_us: int = 100_000, samples: int = 1
    ) -> list[Effect]:
        return self.feed(
            now_us,
            RequestArrived(a_request(number, arrival_us=now_us, slo_us=slo_us, samples=samples)),
        )


def runs(effects: Sequence[Effect]) -> list[RunBatch]:
    return [each for each in effects if isinstance(each, RunBatch)]


def drops(effects: Sequence[Effect]) -> list[tuple[int, DropReason]]:
    return [(each.request, each.reason) for each in effects if isinstance(each, DropRequest)]


def test_requests_that_arrive_together_share_a_batch() -> None:
    bench = Bench()
    first = RequestArrived(a_request(1), followed=True)
    assert runs(bench.feed(0, first)) == []
    (batch,) = runs(bench.arrive(0, 2))
    assert batch.slices == (Slice(RequestId(1), 0, 1), Slice(RequestId(2), 0, 1))


def test_the_last_of_several_arrivals_may_be_refused_or_of_another_model() -> None:
    models = [
        a_model_plan([a_pool(f"{name}-p0", latencies_us=LATENCIES_US)], model=name)
        for name in (ModelName("one"), ModelName("two"))
    ]
    bench = Bench(a_plan(*models))
    for number, model in enumerate(models):
        request = a_request(number, model=model.model)
        assert runs(bench.feed(0, RequestArrived(request, followed=True))) == []
    effects = bench.feed(0, RequestArrived(a_request(2, model=ModelName("unknown"))))
    assert {each.model for each in runs(effects)} == {"one", "two"}
    assert [number for number, _ in drops(effects)] == [2]


def test_an_idle_fleet_runs_a_request_at_once_and_completes_it_once() -> None:
    bench = Bench()
    (run,) = runs(bench.arrive(0, 0))
    assert run.slices == (Slice(RequestId(0), 0, 1),)
    assert run.completion_us == 10_000
    bench.feed(9_000, StageFinished(batch=run.batch, stage=0, compute_us=9_000))
    assert bench.feed(9_500, BatchFinished(run.batch)) == [CompleteRequest(RequestId(0), True)]
    assert CompleteRequest not in map(type, bench.feed(9_600, BatchFinished(run.batch)))


def test_a_batch_stays_open_while_its_first_instance_is_busy() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    assert runs(bench.arrive(1_000, 1)) == []
    assert runs(bench.arrive(2_000, 2)) == []
    effects = bench.feed(10_000, StageFinished(batch=BatchId(0), stage=0, compute_us=10_000))
    (run,) = runs(effects)
    assert [each.request for each in run.slices] == [1, 2]


def test_the_wake_up_binds_the_batch_when_no_report_comes() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    effects = bench.arrive(1_000, 1)
    assert WakeAt(10_000) in effects
    assert runs(bench.feed(10_000, WakeUp()))


def test_a_large_request_is_split_and_completes_with_its_last_slice() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US, instances=2)]))
    bench = Bench(plan)
    first, second = runs(bench.arrive(0, 0, samples=6))
    assert [each.slices[0].count for each in (first, second)] == [4, 2]
    assert CompleteRequest not in map(type, bench.feed(16_000, BatchFinished(first.batch)))
    effects = bench.feed(16_500, BatchFinished(second.batch))
    assert effects == [CompleteRequest(RequestId(0), True)]


def test_a_request_that_cannot_be_met_is_refused_at_once() -> None:
    bench = Bench()
    assert drops(bench.arrive(0, 0, slo_us=9_999)) == [(0, DropReason.DEADLINE)]


def test_a_smaller_batch_is_chosen_when_the_planned_one_would_be_late() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    for number in range(1, 5):
        bench.arrive(0, number, slo_us=25_000)
    effects = bench.feed(10_000, StageFinished(batch=BatchId(0), stage=0, compute_us=10_000))
    (run,) = runs(effects)
    assert len(run.slices) == 3  # 14 ms fit into the 15 ms left, 16 ms do not


def test_a_head_that_only_a_poor_batch_could_save_is_dropped_for_those_behind() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    assert drops(bench.arrive(0, 1, slo_us=23_000)) == []  # two would be done at 22 ms
    assert drops(bench.arrive(0, 2, slo_us=60_000)) == []
    assert drops(bench.arrive(0, 3, slo_us=60_000)) == []  # the first batch may end early
    # Now three wait; a batch of three would be done at 24 ms.
    assert drops(bench.feed(10_000, WakeUp())) == [(1, DropReason.DEADLINE)]


def test_a_head_is_saved_if_what_runs_before_it_ends_early() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    for number, slo_us in enumerate((23_000, 60_000, 60_000), start=1):
        assert drops(bench.arrive(0, number, slo_us=slo_us)) == []
    effects = bench.feed(9_000, StageFinished(batch=BatchId(0), stage=0, compute_us=9_000))
    (run,) = runs(effects)
    assert [each.request for each in run.slices] == [1, 2, 3]


def test_requests_are_held_for_the_planned_time_and_no_longer() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US)], batch_build_us=5_000))
    bench = Bench(plan)
    assert bench.arrive(0, 0)[-1] == WakeAt(5_000)
    assert runs(bench.arrive(2_000, 1)) == []
    (run,) = runs(bench.feed(5_000, WakeUp()))
    assert len(run.slices) == 2


def test_holding_never_makes_the_head_late() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US)], batch_build_us=50_000))
    bench = Bench(plan)
    assert bench.arrive(0, 0, slo_us=15_000)[-1] == WakeAt(1_000)  # three would take 14 ms
    assert bench.feed(1_000, WakeUp())[-1] == WakeAt(3_000)  # two would take 12 ms
    assert runs(bench.feed(3_000, WakeUp()))


def test_the_queue_bound_sheds() -> None:
    bench = Bench(limits=DispatcherLimits(queue_samples=2))
    bench.arrive(0, 0)
    bench.arrive(0, 1, samples=2)
    assert drops(bench.arrive(0, 2)) == [(2, DropReason.SHED)]


def test_without_an_instance_a_request_is_refused_as_unavailable() -> None:
    bench = Bench()
    bench.feed(0, InstanceLost(InstanceId("p0/0")))
    effects = bench.arrive(0, 0)
    assert drops(effects) == [(0, DropReason.UNAVAILABLE)]
    assert "p0" in effects[0].detail  # type: ignore[union-attr]


def test_an_unknown_model_is_refused() -> None:
    bench = Bench()
    request = a_request(0, model=ModelName("other"))
    assert drops(bench.feed(0, RequestArrived(request))) == [(0, DropReason.UNAVAILABLE)]


def test_a_lost_instance_s_batches_are_booked_again_on_another() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US, instances=2)]))
    bench = Bench(plan)
    (run,) = runs(bench.arrive(0, 0))
    effects = bench.feed(4_000, InstanceLost(run.route[0].instance))
    (again,) = runs(effects)
    assert again.batch != run.batch
    assert again.route[0].instance != run.route[0].instance
    assert CancelBatch(run.batch, ()) in effects
    assert bench.feed(5_000, BatchFinished(run.batch)) == []  # an answer from the grave
    assert bench.feed(14_000, BatchFinished(again.batch)) == [CompleteRequest(RequestId(0), True)]


def test_a_lost_request_that_cannot_be_saved_is_unavailable_not_late() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    bench.feed(4_000, InstanceLost(InstanceId("p0/0")))
    assert bench.dispatcher.open_requests == 1
    assert drops(bench.feed(100_000, WakeUp())) == [(0, DropReason.UNAVAILABLE)]


def test_a_request_waits_for_an_instance_that_comes_back_in_time() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    bench.feed(4_000, InstanceLost(InstanceId("p0/0")))
    assert runs(bench.feed(50_000, all_joined(bench.plan)[0]))


def test_a_fault_of_the_data_fails_the_requests_and_is_not_tried_again() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    effects = bench.feed(5_000, BatchFailed(batch=BatchId(0), detail="bad weights"))
    assert effects == [DropRequest(RequestId(0), DropReason.FAILED, "bad weights")]


def test_losing_batches_again_and_again_ends() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=LATENCIES_US)], slo_us=10_000_000))
    bench = Bench(plan, DispatcherLimits(rebookings=2))
    bench.arrive(0, 0, slo_us=10_000_000)
    for number in range(2):
        failed = BatchFailed(batch=BatchId(number), detail="reset", retriable=True)
        assert runs(bench.feed(number, failed))
    failed = BatchFailed(batch=BatchId(2), detail="reset", retriable=True)
    assert drops(bench.feed(3, failed)) == [(0, DropReason.UNAVAILABLE)]


def test_no_word_goes_to_an_instance_that_is_gone() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=(10_000,))], slo_us=10_000_000))
    bench = Bench(plan, DispatcherLimits(rebookings=0))
    bench.arrive(0, 0, slo_us=10_000_000, samples=2)  # two batches, one after the other
    bench.feed(10_000, StageFinished(batch=BatchId(0), stage=0, compute_us=10_000))
    effects = bench.feed(12_000, InstanceLost(InstanceId("p0/0")))
    cancelled = [each for each in effects if isinstance(each, CancelBatch)]
    assert drops(effects) == [(0, DropReason.UNAVAILABLE)]
    assert cancelled
    assert all(each.instances == () for each in cancelled)


def test_a_cancelled_request_leaves_the_queue_and_its_batch() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    bench.arrive(0, 1)
    assert drops(bench.feed(1, RequestCancelled(RequestId(1)))) == [(1, DropReason.CANCELLED)]
    effects = bench.feed(2, RequestCancelled(RequestId(0)))
    assert CancelBatch(BatchId(0), (InstanceId("p0/0"),)) in effects
    assert bench.dispatcher.open_requests == 0


def test_a_silent_batch_is_given_up() -> None:
    bench = Bench(limits=DispatcherLimits(stall_us=1_000_000))
    bench.arrive(0, 0)
    effects = bench.feed(1_100_000, WakeUp())
    assert drops(effects) == [(0, DropReason.DEADLINE)]
    assert runs(bench.arrive(1_200_000, 1))


def test_a_late_answer_is_still_given_and_counted_as_missed() -> None:
    bench = Bench()
    bench.arrive(0, 0, slo_us=11_000)
    effects = bench.feed(12_000, BatchFinished(BatchId(0)))
    assert effects == [CompleteRequest(RequestId(0), False)]


def test_pipelines_share_the_load() -> None:
    fast = a_pool("fast", latencies_us=(10_000,))
    slow = a_pool("slow", gpu_class="slow", latencies_us=(30_000,))
    bench = Bench(a_plan(a_model_plan([fast], [slow])))
    (first,) = runs(bench.arrive(0, 0))
    (second,) = runs(bench.arrive(0, 1))
    assert {first.route[0].instance, second.route[0].instance} == {"fast/0", "slow/0"}


def test_a_pipeline_too_slow_for_the_deadline_is_left_alone() -> None:
    fast = a_pool("fast", latencies_us=(10_000,))
    slow = a_pool("slow", gpu_class="slow", latencies_us=(30_000,))
    bench = Bench(a_plan(a_model_plan([fast], [slow])))
    bench.arrive(0, 0, slo_us=25_000)
    assert runs(bench.arrive(0, 1, slo_us=25_000)) == []  # waits for the fast one
    assert bench.dispatcher.open_requests == 2


def test_a_plan_that_drops_a_model_ends_its_requests() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    other = a_plan(a_model_plan([a_pool()], model=ModelName("other")))
    assert (0, DropReason.UNAVAILABLE) in drops(bench.feed(1, PlanApplied(other)))


def test_a_replaced_plan_keeps_requests_and_books_them_anew() -> None:
    bench = Bench()
    bench.arrive(0, 0)
    bench.feed(1, PlanApplied(bench.plan))
    (run,) = runs(bench.feed(2, all_joined(bench.plan)[0]))
    assert run.batch == BatchId(1)


def parts(run: RunBatch) -> list[tuple[int, int, int]]:
    return [(hop.stage, hop.first, hop.count) for hop in run.route if isinstance(hop, PartHop)]


def test_a_batch_is_as_large_as_the_largest_stage_and_cut_for_the_others() -> None:
    bench = Bench(an_uneven_plan((4, 2), (1, 2)))
    (run,) = runs(bench.arrive(0, 0, samples=4))
    assert parts(run) == [(0, 0, 4), (1, 0, 2), (1, 2, 2)]
    assert [hop.instance for hop in run.route] == ["p0/0", "p1/0", "p1/1"]
    for place in (0, 2, 1):
        hop = run.route[place]
        took_us = hop.end_us - hop.start_us
        bench.feed(hop.end_us, StageFinished(batch=run.batch, stage=place, compute_us=took_us))
    effects = bench.feed(28_000, BatchFinished(run.batch))
    assert effects == [CompleteRequest(RequestId(0), True)]


def test_a_lost_part_is_a_lost_batch() -> None:
    bench = Bench(an_uneven_plan((4, 2), (1, 2)))
    (run,) = runs(bench.arrive(0, 0, samples=4))
    bench.feed(16_000, StageFinished(batch=run.batch, stage=0, compute_us=16_000))
    effects = bench.feed(20_000, InstanceLost(InstanceId("p1/1")))
    cancelled, again = effects[0], runs(effects)
    assert cancelled == CancelBatch(run.batch, (InstanceId("p1/0"),))
    assert [parts(each) for each in again] == [[(0, 0, 4), (1, 0, 2), (1, 2, 2)]]
    assert {hop.instance for hop in again[0].route} == {"p0/0", "p1/0"}


def test_a_part_that_fails_takes_the_others_back() -> None:
    bench = Bench(an_uneven_plan((2, 4), (2, 1)))
    (run,) = runs(bench.arrive(0, 0, samples=4))
    bench.feed(12_000, StageFinished(batch=run.batch, stage=1, compute_us=12_000))
    effects = bench.feed(13_000, BatchFailed(batch=run.batch, detail="boom"))
    assert effects == [
        CancelBatch(run.batch, (InstanceId("p0/0"), InstanceId("p1/0"))),
        DropRequest(RequestId(0), DropReason.FAILED, "boom"),
    ]


def test_each_part_teaches_its_own_size() -> None:
    bench = Bench(an_uneven_plan((3, 2), (1, 1), slo_us=1_000_000))
    (run,) = runs(bench.arrive(0, 0, samples=3, slo_us=1_000_000))
    for at_us, place, compute_us in ((14_000, 0, 14_000), (38_000, 1, 24_000), (58_000, 2, 20_000)):
        bench.feed(at_us, StageFinished(batch=run.batch, stage=place, compute_us=compute_us))
    bench.feed(60_000, BatchFinished(run.batch))
    (again,) = runs(bench.arrive(100_000, 1, samples=3, slo_us=1_000_000))
    first, *last = [hop.end_us - hop.start_us for hop in again.route]
    assert first == 14_000
    assert [us / planned for us, planned in zip(last, (12_000, 10_000), strict=True)] == (
        pytest.approx([1.4, 1.4], abs=0.1)  # twice as slow, seen twice
    )


def test_pipelines_of_different_batches_may_share_a_plan() -> None:
    one, four = a_pool("one", latencies_us=(10_000,)), a_pool("four", gpu_class="slow")
    assert Bench(a_plan(a_model_plan([one], [four]))).dispatcher.has_route(ModelName("m"))


def test_an_instance_of_an_unknown_pool_is_ignored() -> None:
    bench = Bench()
    stranger = InstanceJoined(
        instance=InstanceId("x/0"),
        model=ModelName("m"),
        pool=a_pool("nowhere").id,
        server=all_joined(bench.plan)[0].server,
    )
    assert bench.feed(0, stranger) == []


def test_time_cannot_go_back() -> None:
    bench = Bench()
    bench.arrive(10, 0)
    with pytest.raises(InvariantViolation, match="time went back"):
        bench.dispatcher.handle(9, WakeUp())

"""The ledger: one record per request, batch and stage, and nothing kept longer than needed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from frontend.ledger import BatchRecord, Ledger, RequestRecord, StageRecord
from frontend.statistics import Statistics
from penstock.domain.ids import BatchId, InstanceId, PipelineId, RequestId
from penstock.domain.requests import DropReason, Slice
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Hop,
    PartHop,
    RunBatch,
)
from penstock.scheduling.events import (
    BatchFinished,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    StageFinished,
    WakeUp,
)
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool, a_request, all_joined

POOLS = (a_pool("a", blocks=(0, 1)), a_pool("b", position=1, blocks=(1, 2)))
PLAN = a_plan(a_model_plan(POOLS))


@dataclass
class Notes:
    """A book that keeps everything."""

    requests: list[RequestRecord] = field(default_factory=list)
    batches: list[BatchRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)

    def request_ended(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def batch_ended(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def stage_ended(self, record: StageRecord) -> None:
        self.stages.append(record)


def a_ledger(*books: Notes | Statistics) -> Ledger:
    ledger = Ledger(books)
    ledger(0, PlanApplied(PLAN), ())
    for event in all_joined(PLAN):
        ledger(0, event, ())
    return ledger


def launch(batch: int, *slices: Slice, start_us: int = 1_000) -> RunBatch:
    return RunBatch(
        batch=BatchId(batch),
        model=MODEL,
        pipeline=PipelineId("m.0"),
        route=(
            Hop(instance=InstanceId("a/0"), start_us=start_us, end_us=start_us + 10, sequence=0),
            Hop(instance=InstanceId("b/0"), start_us=start_us + 10, end_us=9_000, sequence=0),
        ),
        slices=slices,
        abandon_us=50_000,
        completion_us=9_000,
    )


def stage(number: int, compute_us: int) -> StageFinished:
    return StageFinished(batch=BatchId(0), stage=number, compute_us=compute_us)


def serve_one(ledger: Ledger, *, met: bool = True) -> None:
    request = a_request(7, arrival_us=100, samples=3)
    ledger(100, RequestArrived(request), (launch(0, Slice(RequestId(7), 0, 3)),))
    ledger(3_000, stage(0, 1_500), ())
    ledger(6_000, stage(1, 2_000), ())
    ledger(6_500, BatchFinished(BatchId(0)), (CompleteRequest(RequestId(7), met),))


def test_an_answered_request_is_cut_into_queueing_computing_and_the_rest() -> None:
    notes = Notes()
    ledger = a_ledger(notes)
    serve_one(ledger)
    assert notes.requests == [
        RequestRecord(
            model=MODEL,
            samples=3,
            outcome="answered",
            duration_us=6_400,
            queue_us=1_400,
            compute_us=3_500,
            handover_us=1_500,
        )
    ]
    assert notes.batches == [
        BatchRecord(model=MODEL, samples=3, compute_us=3_500, handover_us=1_500)
    ]
    assert [(each.pool, each.compute_us) for each in notes.stages] == [("a", 1_500), ("b", 2_000)]
    assert ledger.open_requests[MODEL] == 0


def test_an_answer_after_the_deadline_is_late() -> None:
    notes = Notes()
    serve_one(a_ledger(notes), met=False)
    assert (notes.requests[0].outcome, notes.requests[0].answered) == ("late", True)


def test_a_request_that_is_refused_at_once_never_queued() -> None:
    notes = Notes()
    ledger = a_ledger(notes)
    drop = DropRequest(RequestId(1), DropReason.SHED, "full")
    ledger(10, RequestArrived(a_request(1, arrival_us=10)), (drop,))
    (record,) = notes.requests
    assert (record.outcome, record.queue_us, record.answered) == ("shed", None, False)


def test_a_cancelled_batch_is_no_batch() -> None:
    notes = Notes()
    ledger = a_ledger(notes)
    ledger(0, RequestArrived(a_request(1)), (launch(0, Slice(RequestId(1), 0, 1)),))
    assert ledger.open_requests[MODEL] == 1
    ledger(5, WakeUp(), (CancelBatch(BatchId(0), ()),))
    ledger(6, BatchFinished(BatchId(0)), ())
    assert notes.batches == []


def test_instances_are_counted_by_pool_until_they_are_lost() -> None:
    ledger = a_ledger()
    pool = POOLS[0].id
    assert ledger.ready_instances(pool) == 1
    ledger(1, InstanceLost(InstanceId("a/0")), ())
    ledger(1, InstanceLost(InstanceId("never there")), ())
    assert ledger.ready_instances(pool) == 0


def test_statistics_add_up_what_the_ledger_writes() -> None:
    statistics = Statistics([MODEL], lambda: 42)
    ledger = a_ledger(statistics)
    serve_one(ledger)
    drop = DropRequest(RequestId(8), DropReason.DEADLINE)
    ledger(7_000, RequestArrived(a_request(8, arrival_us=7_000)), (drop,))
    tally = statistics.of(MODEL)
    assert (tally.samples, tally.batches, tally.last_inference_ms) == (3, 1, 42)
    assert (tally.success.count, tally.success.total_us) == (1, 6_400)
    assert (tally.fail.count, tally.fail.total_us) == (1, 0)
    assert (tally.queue.total_us, tally.compute.total_us, tally.handover.total_us) == (
        1_400,
        3_500,
        1_500,
    )
    assert set(tally.by_batch) == {3}


def test_of_parts_that_compute_at_once_the_longest_counts() -> None:
    notes = Notes()
    ledger = a_ledger(notes)
    parts = [("a/0", 0, 0), ("b/0", 1, 0), ("b/0", 1, 2)]
    run = replace(
        launch(0, Slice(RequestId(7), 0, 3)),
        route=tuple(
            PartHop(
                instance=InstanceId(instance),
                start_us=1_000,
                end_us=2_000,
                sequence=0,
                stage=stage,
                first=first,
                count=1,
            )
            for instance, stage, first in parts
        ),
    )
    ledger(100, RequestArrived(a_request(7, arrival_us=100, samples=3)), (run,))
    ledger(3_000, stage(0, 1_500), ())
    ledger(5_000, stage(2, 1_000), ())
    ledger(5_500, stage(1, 2_000), ())
    ledger(6_500, BatchFinished(BatchId(0)), (CompleteRequest(RequestId(7), True),))
    assert notes.batches == [
        BatchRecord(model=MODEL, samples=3, compute_us=3_500, handover_us=1_500)
    ]
    assert [each.pool for each in notes.stages] == ["a", "b", "b"]

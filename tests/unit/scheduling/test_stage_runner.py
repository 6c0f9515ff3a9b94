from __future__ import annotations

from penstock.domain.ids import BatchId
from penstock.scheduling.stage_runner import (
    Abandon,
    AbandonReason,
    BatchArrived,
    BatchCancelled,
    Compute,
    ComputeFinished,
    RunnerWakeAt,
    RunnerWakeUp,
    StageRunner,
)


def arrived(
    number: int, *, sequence: int | None = None, start_us: int = 0, abandon_us: int = 1_000_000
) -> BatchArrived:
    return BatchArrived(
        batch=BatchId(number),
        sequence=number if sequence is None else sequence,
        start_us=start_us,
        abandon_us=abandon_us,
    )


def test_the_next_in_order_starts_at_once_even_before_its_booking() -> None:
    assert StageRunner().handle(0, arrived(0, start_us=500)) == [Compute(BatchId(0))]


def test_one_batch_runs_at_a_time_in_booked_order() -> None:
    runner = StageRunner()
    assert runner.handle(0, arrived(0)) == [Compute(BatchId(0))]
    assert runner.handle(1, arrived(2)) == []
    assert runner.handle(2, arrived(1)) == []
    assert runner.handle(9, ComputeFinished(BatchId(0))) == [Compute(BatchId(1))]
    assert runner.handle(19, ComputeFinished(BatchId(1))) == [Compute(BatchId(2))]


def test_a_batch_ahead_of_its_turn_waits_for_its_booked_start_then_goes() -> None:
    runner = StageRunner()
    assert runner.handle(0, arrived(1, start_us=100)) == [RunnerWakeAt(100)]
    assert runner.handle(100, RunnerWakeUp()) == [Compute(BatchId(1))]
    assert runner.handle(101, arrived(0)) == []
    assert runner.handle(110, ComputeFinished(BatchId(1))) == [Compute(BatchId(0))]


def test_the_missing_batch_goes_first_if_it_comes_in_time() -> None:
    runner = StageRunner()
    runner.handle(0, arrived(1, start_us=100))
    assert runner.handle(50, arrived(0)) == [Compute(BatchId(0))]
    assert runner.handle(60, ComputeFinished(BatchId(0))) == [Compute(BatchId(1))]


def test_a_hopeless_batch_is_abandoned_not_run() -> None:
    runner = StageRunner()
    runner.handle(0, arrived(0))
    runner.handle(1, arrived(1, abandon_us=50))
    runner.handle(1, arrived(2))
    assert runner.handle(50, ComputeFinished(BatchId(0))) == [
        Abandon(BatchId(1), AbandonReason.LATE),
        Compute(BatchId(2)),
    ]


def test_a_cancelled_batch_is_abandoned_whether_waiting_or_still_to_come() -> None:
    runner = StageRunner()
    runner.handle(0, arrived(0))
    runner.handle(1, arrived(1))
    assert runner.handle(2, BatchCancelled(BatchId(1))) == [
        Abandon(BatchId(1), AbandonReason.CANCELLED)
    ]
    assert runner.handle(3, BatchCancelled(BatchId(2))) == []
    assert runner.handle(4, arrived(2)) == [Abandon(BatchId(2), AbandonReason.CANCELLED)]
    assert runner.handle(5, ComputeFinished(BatchId(0))) == []
    assert runner.handle(6, arrived(3)) == [Compute(BatchId(3))]


def test_a_running_batch_is_not_interrupted_by_its_cancellation() -> None:
    runner = StageRunner()
    runner.handle(0, arrived(0))
    assert runner.handle(1, BatchCancelled(BatchId(0))) == []
    assert runner.handle(2, ComputeFinished(BatchId(0))) == []

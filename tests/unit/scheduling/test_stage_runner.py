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


def rows(
    number: int, place: int, count: int, of: int, *, sequence: int = 0, abandon_us: int = 900
) -> BatchArrived:
    return BatchArrived(
        batch=BatchId(number),
        sequence=sequence,
        start_us=0,
        abandon_us=abandon_us,
        place=place,
        rows=count,
        of_rows=of,
    )


def test_a_part_starts_when_all_its_rows_are_here() -> None:
    runner = StageRunner()
    assert runner.handle(0, rows(0, 2, 1, 4)) == [RunnerWakeAt(900)]
    assert runner.handle(1, rows(0, 2, 2, 4)) == []
    assert runner.handle(2, rows(0, 2, 1, 4)) == [Compute(BatchId(0), 2)]


def test_two_parts_of_a_batch_run_in_booked_order() -> None:
    runner = StageRunner()
    assert runner.handle(0, rows(0, 3, 2, 2, sequence=0)) == [Compute(BatchId(0), 3)]
    assert runner.handle(1, rows(0, 4, 2, 2, sequence=1)) == []
    assert runner.handle(5, ComputeFinished(BatchId(0), 3)) == [Compute(BatchId(0), 4)]
    assert runner.handle(9, ComputeFinished(BatchId(0), 3)) == []  # heard before
    assert runner.handle(9, ComputeFinished(BatchId(0), 4)) == []


def test_a_part_whose_rows_never_come_is_forgotten() -> None:
    runner = StageRunner()
    assert runner.handle(0, rows(0, 1, 1, 2, abandon_us=50)) == [RunnerWakeAt(50)]
    assert runner.handle(0, rows(1, 1, 1, 2, sequence=1, abandon_us=80)) == []
    assert runner.handle(50, RunnerWakeUp()) == [
        Abandon(BatchId(0), AbandonReason.LATE, 1),
        RunnerWakeAt(80),
    ]
    assert runner.handle(80, RunnerWakeUp()) == [Abandon(BatchId(1), AbandonReason.LATE, 1)]


def test_a_wake_up_serves_what_waits_and_what_is_incomplete() -> None:
    runner = StageRunner()
    assert runner.handle(0, rows(0, 0, 1, 2, abandon_us=90)) == [RunnerWakeAt(90)]
    assert runner.handle(1, arrived(1, start_us=40)) == [RunnerWakeAt(40)]
    assert runner.handle(40, RunnerWakeUp()) == [Compute(BatchId(1)), RunnerWakeAt(90)]


def test_cancelling_takes_all_parts_and_those_that_come_later() -> None:
    runner = StageRunner()
    runner.handle(0, arrived(9))
    runner.handle(0, rows(0, 1, 2, 2, sequence=10))
    runner.handle(0, rows(0, 2, 1, 2, sequence=11))
    gone = [Abandon(BatchId(0), AbandonReason.CANCELLED, place) for place in (1, 2)]
    assert runner.handle(1, BatchCancelled(BatchId(0))) == gone
    for place in (2, 3):
        later = rows(0, place, 1, 2, sequence=9 + place)
        assert runner.handle(2, later) == [Abandon(BatchId(0), AbandonReason.CANCELLED, place)]

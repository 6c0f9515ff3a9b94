"""The stage runner under random events: every batch runs or is given up, once."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from penstock.domain.ids import BatchId
from penstock.scheduling.stage_runner import (
    Abandon,
    AbandonReason,
    BatchArrived,
    BatchCancelled,
    Compute,
    ComputeFinished,
    RunnerEvent,
    RunnerWakeAt,
    RunnerWakeUp,
    StageRunner,
)


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, BatchArrived, int | None]]:
    """Batches in booked order that arrive, and are perhaps cancelled, at any time."""
    batches: list[tuple[int, BatchArrived, int | None]] = []
    for number in range(draw(st.integers(1, 8))):
        batch = BatchArrived(
            batch=BatchId(number),
            sequence=number,
            start_us=draw(st.integers(0, 100)),
            abandon_us=draw(st.sampled_from([30, 60, 10_000])),
        )
        cancelled_us = draw(st.one_of(st.none(), st.integers(0, 120)))
        batches.append((draw(st.integers(0, 100)), batch, cancelled_us))
    return batches


class World:
    """Performs the runner's effects at a fixed compute time."""

    def __init__(self, compute_us: int) -> None:
        self.runner = StageRunner()
        self.compute_us = compute_us
        self.todo: list[tuple[int, int, RunnerEvent]] = []
        self.running: BatchId | None = None
        self.ran: dict[BatchId, int] = {}
        self.abandoned: dict[BatchId, tuple[int, AbandonReason]] = {}

    def at(self, at_us: int, event: RunnerEvent) -> None:
        self.todo.append((at_us, len(self.todo), event))

    def run(self) -> None:
        done = 0
        while done < len(self.todo):
            rest = sorted(self.todo[done:], key=lambda each: each[:2])
            self.todo[done:] = rest
            now_us, _, event = self.todo[done]
            done += 1
            if isinstance(event, ComputeFinished):
                self.running = None
            for effect in self.runner.handle(now_us, event):
                self.take(now_us, effect)

    def take(self, now_us: int, effect: Compute | Abandon | RunnerWakeAt) -> None:
        match effect:
            case Compute(batch):
                assert self.running is None
                assert batch not in self.ran
                assert batch not in self.abandoned
                self.running = batch
                self.ran[batch] = now_us
                self.at(now_us + self.compute_us, ComputeFinished(batch))
            case Abandon(batch, reason):
                assert batch not in self.ran
                assert batch not in self.abandoned
                self.abandoned[batch] = (now_us, reason)
            case RunnerWakeAt(at_us):
                assert at_us > now_us
                self.at(at_us, RunnerWakeUp())


@given(arrivals(), st.integers(1, 40))
def test_each_batch_runs_or_is_abandoned_exactly_once(
    batches: list[tuple[int, BatchArrived, int | None]], compute_us: int
) -> None:
    world = World(compute_us)
    for at_us, batch, cancelled_us in batches:
        world.at(at_us, batch)
        if cancelled_us is not None:
            world.at(cancelled_us, BatchCancelled(batch.batch))
    world.run()
    by_id = {batch.batch: (batch, cancelled_us) for _, batch, cancelled_us in batches}
    assert set(world.ran) | set(world.abandoned) == set(by_id)
    for batch_id, started_us in world.ran.items():
        assert started_us < by_id[batch_id][0].abandon_us
    for batch_id, (at_us, reason) in world.abandoned.items():
        batch, cancelled_us = by_id[batch_id]
        if reason is AbandonReason.LATE:
            assert at_us >= batch.abandon_us
        else:
            assert cancelled_us is not None
            assert at_us >= cancelled_us

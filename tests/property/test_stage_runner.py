"""The stage runner under random events: every batch runs or is given up, once."""

from __future__ import annotations

from typing import TypeAlias

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

Key: TypeAlias = tuple[BatchId, int]


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
        self.running: Key | None = None
        self.ran: dict[Key, int] = {}
        self.abandoned: dict[Key, tuple[int, AbandonReason]] = {}

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
            case Compute(batch, place):
                assert self.running is None
                assert (batch, place) not in self.ran
                assert (batch, place) not in self.abandoned
                self.running = (batch, place)
                self.ran[batch, place] = now_us
                self.at(now_us + self.compute_us, ComputeFinished(batch, place))
            case Abandon(batch, reason, place):
                assert (batch, place) not in self.ran
                self.abandoned[batch, place] = (now_us, reason)
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
    assert {batch for batch, _ in [*world.ran, *world.abandoned]} == set(by_id)
    assert not world.ran.keys() & world.abandoned.keys()
    for (batch_id, _), started_us in world.ran.items():
        assert started_us < by_id[batch_id][0].abandon_us
    for (batch_id, _), (at_us, reason) in world.abandoned.items():
        batch, cancelled_us = by_id[batch_id]
        if reason is AbandonReason.LATE:
            assert at_us >= batch.abandon_us
        else:
            assert cancelled_us is not None
            assert at_us >= cancelled_us


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 3)), min_size=1, max_size=8),
    st.sets(st.integers(0, 7)),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(0, 120)),
)
def test_parts_run_once_when_complete_and_no_row_is_kept_for_ever(
    parts: list[tuple[int, int]], lacking: set[int], compute_us: int, cancelled_us: int | None
) -> None:
    """All of one batch; row by row; of some the last row never comes."""
    world = World(compute_us)
    for place, (at_us, count) in enumerate(parts):
        for row in range(count - (place in lacking)):
            event = BatchArrived(
                batch=BatchId(0),
                sequence=place,
                start_us=at_us,
                abandon_us=500,
                place=place,
                of_rows=count,
            )
            world.at(at_us + 3 * row, event)
    if cancelled_us is not None:
        world.at(cancelled_us, BatchCancelled(BatchId(0)))
    world.run()
    came = {place for place, (_, count) in enumerate(parts) if count - (place in lacking)}
    assert {place for _, place in [*world.ran, *world.abandoned]} == came
    complete = came - lacking
    if cancelled_us is None:
        assert {place for _, place in world.ran} == complete
        assert {at_us for at_us, _ in world.abandoned.values()} <= {500}
    assert {place for _, place in world.ran} <= complete
    assert not world.runner._incomplete
    assert not world.runner._waiting

from __future__ import annotations

from demo.history import intervals_of
from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.outcomes import Interval
from penstock.domain.requests import Slice
from penstock.scheduling.effects import Effect, Hop, RunBatch
from penstock.scheduling.events import Event, StageFinished, WakeUp


def test_each_report_becomes_an_interval_that_ends_when_it_came() -> None:
    run = RunBatch(
        batch=BatchId(3),
        model=ModelName("m"),
        pipeline=PipelineId("m.0"),
        route=(Hop(instance=InstanceId("p/0"), start_us=0, end_us=9, sequence=0),),
        slices=(Slice(RequestId(1), 0, 2), Slice(RequestId(2), 0, 1)),
        abandon_us=99,
        completion_us=10,
    )
    report = StageFinished(batch=BatchId(3), stage=0, compute_us=40)
    stranger = StageFinished(batch=BatchId(4), stage=0, compute_us=40)
    log: list[tuple[int, Event, list[Effect]]] = [
        (5, WakeUp(), [run]),
        (60, report, []),
        (61, stranger, []),
    ]
    assert intervals_of(log) == (
        Interval(
            instance=InstanceId("p/0"),
            stage=0,
            batch=BatchId(3),
            samples=3,
            start_us=20,
            end_us=60,
        ),
    )

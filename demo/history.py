"""What each instance computed when, read back from the run log of a live frontend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.domain.ids import BatchId
from penstock.domain.outcomes import Interval
from penstock.domain.units import Micros
from penstock.scheduling.effects import Effect, PartHop, RunBatch
from penstock.scheduling.events import Event, StageFinished


def intervals_of(
    entries: Iterable[tuple[Micros, Event, Sequence[Effect]]],
) -> tuple[Interval, ...]:
    """Return one interval per stage of each batch that reported it.

    Args:
        entries: (now_us, event, effects) in order.
    """
    batches: dict[BatchId, RunBatch] = {}
    intervals: list[Interval] = []
    for now_us, event, effects in entries:
        for effect in effects:
            if isinstance(effect, RunBatch):
                batches[effect.batch] = effect
        if isinstance(event, StageFinished) and event.batch in batches:
            run = batches[event.batch]
            hop = run.route[event.stage]
            part = hop if isinstance(hop, PartHop) else None
            intervals.append(
                Interval(
                    instance=hop.instance,
                    stage=part.stage if part else event.stage,
                    batch=event.batch,
                    samples=part.count if part else sum(each.count for each in run.slices),
                    start_us=now_us - event.compute_us,
                    end_us=now_us,
                )
            )
    return tuple(intervals)

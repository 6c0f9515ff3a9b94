"""Batches that go through the simulated fleet in parts.

`simulator.world` moves whole batches and knows what becomes of requests; this moves the parts of
those that some stage has to cut. A part is computed when all its rows have come, and its rows go on
as soon as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from penstock.domain.ids import BatchId
from penstock.domain.units import Micros
from penstock.scheduling.effects import PartHop, RunBatch
from penstock.scheduling.events import BatchFailed, Event, StageFinished
from penstock.scheduling.parts import Part, next_parts
from penstock.scheduling.stage_runner import BatchArrived, ComputeFinished, RunnerEvent
from simulator.engine import Engine
from simulator.parts import Cut, Instance, Travel, sent_over
from simulator.record import Computations

_Key: TypeAlias = tuple[Instance, BatchId, int]


class _Piece(NamedTuple):
    """Some rows of a batch at a hop, or on their way there."""

    travel: Travel
    cut: Cut
    place: int
    rows: int = 0
    started_us: Micros = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What parts ask of the world they are in.

    Attributes:
        run: lets an instance's stage runner handle an event.
        post: tells the dispatcher.
        lose: forgets a batch, some of which is gone.
        answer: hands in a batch that is all back.
    """

    run: Callable[[Instance, RunnerEvent], None]
    post: Callable[[Event], None]
    lose: Callable[[Travel], None]
    answer: Callable[[Travel], None]


class CutBatches:
    """Moves the parts of all batches that are cut.

    Args:
        fleet: that they go through.
        engine: of the simulated time.
        computations: where they are recorded.
        hop_us: what each hand-over takes.
        stretch: as in `simulator.parts.Conditions`.
    """

    def __init__(
        self,
        fleet: Fleet,
        engine: Engine,
        computations: Computations,
        hop_us: Micros,
        stretch: Callable[[Micros], Micros] | None,
    ) -> None:
        self._fleet = fleet
        self._engine = engine
        self._computations = computations
        self._hop_us = hop_us
        self._stretch = stretch
        self._held: dict[_Key, _Piece] = {}

    def send(self, travel: Travel, cut: Cut) -> None:
        """Send the parts of the first stage."""
        for place, part in enumerate(cut.parts):
            if part.stage == 0:
                piece = _Piece(travel, cut, place, part.count)
                self._engine.at(self._engine.now_us + self._hop_us, self._reach, piece)

    def compute(self, instance: Instance, batch: BatchId, place: int) -> None:
        """Compute the part that an instance's runner starts."""
        travel, cut, *_ = self._held[instance, batch, place]
        part, start_us = cut.parts[place], self._engine.now_us
        us = instance.latencies_us[part.count - 1]
        if self._stretch is not None:
            us = self._stretch(us)
        record = self._computations.begin(
            instance.number, part.stage, batch, part.count, start_us, start_us + us
        )
        cut.computing[place] = record
        cut.done.append((record, part))
        piece = _Piece(travel, cut, place, part.count, start_us)
        self._engine.at(start_us + us, self._computed, piece)

    def abandon(self, instance: Instance, batch: BatchId, place: int, reason: str) -> None:
        """Give up the part that an instance's runner gives up, and its batch."""
        travel, cut, *_ = self._held.pop((instance, batch, place))
        cut.at.discard(place)
        if not travel.lost:
            self._fleet.lose(travel)
            self._fleet.post(BatchFailed(batch=batch, detail=reason, too_late=True))

    def fail(self, instance: Instance) -> None:
        """Take the loss of an instance, with all parts it holds; what it computes ends now."""
        for key in [each for each in self._held if each[0] is instance]:
            cut, place = self._held.pop(key).cut, key[2]
            cut.at.discard(place)
            if place in cut.computing:
                self._computations.cut_short(cut.computing.pop(place), self._engine.now_us)

    def is_with(self, cut: Cut, instance: Instance) -> bool:
        """Tell whether an instance has rows of a batch, or has not yet sent all of them."""
        now_us = self._engine.now_us
        leaving = [place for place, until_us in cut.sent_until_us.items() if until_us > now_us]
        return any(cut.instances[place] is instance for place in (*cut.at, *leaving))

    def mark_useful(self, travel: Travel, cut: Cut) -> None:
        """Record what each part of a batch was good for: its share of the whole, in samples."""
        for record, part in cut.done:
            before = travel.useful * part.first // travel.samples
            upto = travel.useful * part.end // travel.samples
            self._computations.count_useful(record, upto - before)

    def _reach(self, piece: _Piece) -> None:
        travel, cut, place, rows, _ = piece
        instance = cut.instances[place]
        if travel.lost:
            return
        if instance.lost:
            self._fleet.lose(travel)
            return
        cut.at.add(place)
        self._held[instance, travel.batch, place] = piece
        hop = cut.run.route[place]
        event = BatchArrived(
            batch=travel.batch,
            sequence=hop.sequence,
            start_us=hop.start_us,
            abandon_us=cut.run.abandon_us,
            place=place,
            rows=rows,
            of_rows=cut.parts[place].count,
        )
        self._fleet.run(instance, event)

    def _computed(self, piece: _Piece) -> None:
        travel, cut, place, _, started_us = piece
        instance, batch = cut.instances[place], travel.batch
        if instance.lost:
            return
        del self._held[instance, batch, place]
        cut.at.discard(place)
        del cut.computing[place]
        if not travel.lost:
            self._forward(travel, cut, place)
        self._fleet.run(instance, ComputeFinished(batch, place))
        compute_us = self._engine.now_us - started_us
        self._fleet.post(StageFinished(batch=batch, stage=place, compute_us=compute_us))

    def _forward(self, travel: Travel, cut: Cut, place: int) -> None:
        """Send the rows of a part on, receiver by receiver, as `simulator.world` sends a batch."""
        now_us = self._engine.now_us
        following = next_parts(cut.parts, place)
        if not following:
            self._engine.at(now_us + self._hop_us, self._return, _Piece(travel, cut, place))
        sender = cut.instances[place]
        for there, rows in following:
            receiver = cut.instances[there]
            if receiver.lost:
                self._fleet.lose(travel)
                return
            wire_us = round(travel.wires_us[rows.stage - 1] * rows.count)
            sent_us = sent_over(sender, receiver, now_us, wire_us)
            cut.sent_until_us[place] = max(sent_us, cut.sent_until_us.get(place, 0))
            piece = _Piece(travel, cut, there, rows.count)
            self._engine.at(sent_us + self._hop_us, self._reach, piece)

    def _return(self, piece: _Piece) -> None:
        travel, cut, place, *_ = piece
        cut.missing.discard(place)
        if not cut.missing and not travel.lost:
            self._fleet.answer(travel)


def cut_of(run: RunBatch, instances: tuple[Instance, ...]) -> Cut | None:
    """Return the parts of a batch's route, all of them missing; None if it goes whole."""
    hops = [hop for hop in run.route if isinstance(hop, PartHop)]
    if not hops:
        return None
    parts = tuple(Part(hop.stage, hop.first, hop.count) for hop in hops)
    last = parts[-1].stage
    missing = {place for place, each in enumerate(parts) if each.stage == last}
    return Cut(run, instances, parts, missing)

"""How a batch is cut where the stages of its pipeline differ in batch size.

What is launched together is one batch still, as large as the largest stage takes. A stage that
takes less runs it in *parts*: consecutive rows, each part full but the last. Knows rows and
stages; nothing of instances or times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.domain.requests import Slice


@dataclass(frozen=True, slots=True)
class Part:
    """Rows [first, first + count) of a batch, at one stage of its pipeline."""

    stage: int
    first: int
    count: int

    @property
    def end(self) -> int:
        """The first row behind it."""
        return self.first + self.count

    def within(self, size: int) -> Part:
        """Return what is left of it in a batch of `size`."""
        return Part(self.stage, self.first, min(self.count, size - self.first))

    def rows_of(self, other: Part) -> Part:
        """Return what both have in common, at the other's stage; count 0 or less: nothing."""
        first = max(self.first, other.first)
        return Part(other.stage, first, min(self.end, other.end) - first)


@dataclass(frozen=True, slots=True)
class Feed:
    """Rows that a part gets from a part of the stage before.

    Attributes:
        place: of the part that sends them, in the order of the route.
        count: how many.
    """

    place: int
    count: int


@dataclass(frozen=True, slots=True)
class Cuts:
    """A batch of one size as it goes through a pipeline.

    Attributes:
        parts: in order of stage, then of rows: the order of its route.
        feeds: of each part; none at the first stage.
    """

    parts: tuple[Part, ...]
    feeds: tuple[tuple[Feed, ...], ...]


def cut(size: int, batches: Iterable[int]) -> Cuts:
    """Cut a batch of `size` for stages that take at most so many samples at once."""
    parts = tuple(
        Part(stage, first, min(batch, size - first))
        for stage, batch in enumerate(batches)
        for first in range(0, size, batch)
    )
    return Cuts(parts, tuple(tuple(_feeds(parts, each)) for each in parts))


def next_parts(parts: Sequence[Part], place: int) -> list[tuple[int, Part]]:
    """Return the places that a part sends to, each with the rows it owes there."""
    own = parts[place]
    owed = ((there, own.rows_of(each)) for there, each in enumerate(parts))
    return [(there, rows) for there, rows in owed if rows.stage == own.stage + 1 and rows.count > 0]


def slices_of(slices: Iterable[Slice], first: int, count: int) -> tuple[Slice, ...]:
    """Return the slices that rows [first, first + count) of a batch are made of."""
    found: list[Slice] = []
    offset = 0
    for each in slices:
        start = max(first, offset)
        end = min(first + count, offset + each.count)
        if start < end:
            found.append(Slice(each.request, each.first + start - offset, end - start))
        offset += each.count
    return tuple(found)


def _feeds(parts: Sequence[Part], part: Part) -> Iterable[Feed]:
    for place, each in enumerate(parts):
        rows = each.rows_of(part)
        if each.stage + 1 == part.stage and rows.count > 0:
            yield Feed(place, rows.count)

"""Cuts rows out of tensors and joins them again, wherever a tensor has its batch axis.

Some tensors that cross between stages have it behind other axes, and some have none: those are the
same for every row, and go with each part whole. Knows bytes, no array library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.devices import DeviceBytes
from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Buffer, Tensor

Stretch: TypeAlias = Buffer | DeviceBytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, first + count) of a batch, one tensor for each of a stage's inputs."""

    first: int
    count: int
    tensors: tuple[Tensor, ...]


class Rows:
    """Knows where the tensors of one stage have their batch axis.

    Args:
        specs: of the stage's inputs and outputs.
    """

    def __init__(self, specs: Iterable[TensorSpec] = ()) -> None:
        self._axes = {
            each.name: each.shape.index(DYNAMIC) if DYNAMIC in each.shape else None
            for each in specs
        }

    def cut(self, tensors: Iterable[Tensor], first: int, count: int) -> tuple[Tensor, ...]:
        """Return rows [first, first + count) of each tensor."""
        return tuple(self._cut(each, first, count) for each in tensors)

    def join(self, pieces: Iterable[Piece]) -> tuple[Tensor, ...]:
        """Return the tensors of all pieces together, rows in order.

        Raises:
            InvalidInput: they are not of the same tensors.
        """
        ordered = sorted(pieces, key=lambda piece: piece.first)
        if len(ordered) == 1:
            return ordered[0].tensors
        names = [tuple(each.name for each in piece.tensors) for piece in ordered]
        for other in names[1:]:
            if other != names[0]:
                raise InvalidInput("batch", "tensors", ", ".join(names[0]), ", ".join(other))
        columns = zip(*(piece.tensors for piece in ordered), strict=True)
        return tuple(self._join(column) for column in columns)

    def _axis(self, tensor: Tensor) -> int | None:
        axis = self._axes.get(tensor.name, 0)
        return axis if axis is not None and axis < len(tensor.shape) else None

    def _cut(self, tensor: Tensor, first: int, count: int) -> Tensor:
        axis = self._axis(tensor)
        if axis is None:
            return tensor
        shape = (*tensor.shape[:axis], count, *tensor.shape[axis + 1 :])
        return _put_together(tensor, shape, _stretches(tensor, axis, first, count))

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        axis = self._axis(parts[0])
        if axis is None:
            return parts[0]
        first = parts[0]
        for each in parts[1:]:
            if _beside(each, axis) != _beside(first, axis):
                raise InvalidInput("batch", first.name, _words(first), _words(each))
        stretches = [_stretches(each, axis, 0, each.shape[axis]) for each in parts]
        rows = sum(each.shape[axis] for each in parts)
        shape = (*first.shape[:axis], rows, *first.shape[axis + 1 :])
        return _put_together(first, shape, [*chain.from_iterable(zip(*stretches, strict=True))])


def _put_together(like: Tensor, shape: tuple[int, ...], stretches: Sequence[Stretch]) -> Tensor:
    """Return a tensor of stretches; no byte leaves a device for that."""
    here = [each for each in stretches if isinstance(each, bytes | memoryview)]
    if len(here) < len(stretches):
        return Tensor(like.name, like.datatype, shape, b"", tuple(stretches))
    data = here[0] if len(here) == 1 else b"".join(here)
    return Tensor(like.name, like.datatype, shape, data)


def _stretches(tensor: Tensor, axis: int, first: int, count: int) -> list[Stretch]:
    """Return the bytes of some rows, one stretch for each index before their axis."""
    before = math.prod(tensor.shape[:axis])
    rows = tensor.shape[axis]
    row_bytes = tensor.size // max(1, before * rows)
    starts = ((index * rows + first) * row_bytes for index in range(before))
    if not tensor.pieces:
        view = memoryview(tensor.data)
        return [view[start : start + count * row_bytes] for start in starts]
    (whole,) = tensor.pieces  # as it came from a link
    return [_part(whole, start, start + count * row_bytes) for start in starts]


def _part(whole: Stretch, start: int, end: int) -> Stretch:
    if isinstance(whole, bytes | memoryview):
        return whole[start:end]
    return whole.part(start, end)


def _beside(tensor: Tensor, axis: int) -> tuple[object, ...]:
    return tensor.datatype, tensor.shape[:axis], tensor.shape[axis + 1 :]


def _words(tensor: Tensor) -> str:
    return f"{tensor.datatype} {list(tensor.shape)}"

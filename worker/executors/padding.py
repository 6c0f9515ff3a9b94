"""Rows that are put into larger batches, and taken out again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from execution.datatypes import DTYPES
from penstock.domain.blocks import TensorSpec
from worker.executors.base import shape_at
from worker.executors.tensors import batch_axes, some_rows


class Padding:
    """Knows where the tensors of one stage have their batch axis.

    Args:
        inputs, outputs: of the stage.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._inputs = tuple(inputs)
        self._into = batch_axes(inputs)
        self._out_of = batch_axes(outputs)

    def buffers(self, size: int, device: torch.device) -> list[torch.Tensor]:
        """Return zeros for a batch of a size: what is never written to stays finite."""
        return [
            torch.zeros(shape_at(spec, size), dtype=DTYPES[spec.datatype], device=device)
            for spec in self._inputs
        ]

    def fill(
        self, buffers: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor], samples: int
    ) -> None:
        """Put a batch's rows at the beginning of the buffers."""
        for buffer, tensor, axis in zip(buffers, tensors, self._into, strict=True):
            some_rows(buffer, axis, 0, samples).copy_(tensor, non_blocking=True)

    def cut(self, outputs: Sequence[torch.Tensor], samples: int) -> list[torch.Tensor]:
        """Return views of the rows that are not padding."""
        return [
            some_rows(each, axis, 0, samples)
            for each, axis in zip(outputs, self._out_of, strict=True)
        ]

    def part(self, outputs: Sequence[torch.Tensor], first: int, count: int) -> list[torch.Tensor]:
        """Return some rows, each tensor in one piece."""
        return [
            some_rows(each, axis, first, count).contiguous()
            for each, axis in zip(outputs, self._out_of, strict=True)
        ]

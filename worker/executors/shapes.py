"""Moves tensors of the right shape and computes nothing: for clusters larger than one host."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.blocks import TensorSpec
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from worker.executors.base import StageResult, ordered, zeros
from worker.stages import Stage


class ShapesExecutor:
    """Answers zeros. Reads no block file."""

    def __init__(self) -> None:
        self._inputs: tuple[TensorSpec, ...] = ()
        self._outputs: tuple[TensorSpec, ...] = ()

    def load(self, stage: Stage) -> Computation:
        """Remember the stage's shapes."""
        self._inputs, self._outputs = stage.inputs, stage.outputs
        return Computation()

    def run(
        self,
        tensors: Sequence[Tensor],
        samples: int,
        *,
        queued: bool = False,  # noqa: ARG002 - only emulation asks
    ) -> StageResult:
        """Check the inputs and return zeros."""
        ordered(tensors, self._inputs, samples)
        return StageResult(zeros(self._outputs, samples))

    def close(self) -> None:
        """Do nothing: nothing is held."""

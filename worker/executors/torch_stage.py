"""A stage as exported programs on one torch device. Imports torch; only executors import this."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from execution.blocks import Chain, load_program
from execution.conversion import set_float32_precision
from execution.program import DOES_NOT_RUN, Program
from penstock.domain.blocks import Block
from penstock.domain.errors import InvalidGraph, StageLoadFailed
from penstock.domain.execution import Computation, ExecutionOptions
from penstock.domain.tensors import Tensor
from worker.executors.accuracy import Error, difference, fixed_inputs
from worker.executors.base import ordered
from worker.executors.tensors import from_torch
from worker.stages import Stage

Run: TypeAlias = Callable[[Sequence[torch.Tensor], int], Sequence[torch.Tensor]]

_CHECKED_ROWS = 4

_log = logging.getLogger(__name__)


class TorchStage:
    """One stage as it was asked for: precision, memory format, compiled or not.

    Args:
        stage: where the blocks lie, and the options.
        device: where they are to run.
        compile_by_default: what ``auto`` means on this device.

    Raises:
        StageLoadFailed: a block cannot be read or does not run.
    """

    def __init__(self, stage: Stage, device: torch.device, *, compile_by_default: bool) -> None:
        options = stage.execution
        self.stage = stage
        self.device = device
        compiles = options.compiles(by_default=compile_by_default)
        as_exported = (options.precision, options.memory_format) == ("fp32", "contiguous")
        self._exact = as_exported and not compiles
        chain = Chain(stage.blocks, [_load(stage, block, device) for block in stage.blocks])
        self._inputs = fixed_inputs(stage.inputs, min(stage.batch, _CHECKED_ROWS))
        self._expected = [] if self._exact else self._reference(chain)
        self._program = Program(stage.name, chain, options, compiles=compiles)

    @property
    def is_compiled(self) -> bool:
        """Whether it runs compiled: at each batch size as long as that takes when it is new."""
        return self._program.is_compiled

    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the stage's outputs.

        Args:
            inputs: on the device, in the stage's order.
        """
        return self._program.run(inputs)

    def first_run(self, inputs: Sequence[torch.Tensor], samples: int) -> None:
        """Run once, so that later runs of that batch size take no longer than they have to.

        Raises:
            StageLoadFailed: it does not run, neither compiled nor as it is.
        """
        try:
            self._program.first_run(inputs)
        except torch.OutOfMemoryError:
            raise
        except DOES_NOT_RUN as error:
            raise StageLoadFailed(
                f"{self.stage.name} does not run at batch {samples}: {error}"
            ) from error

    def error_of(self, run: Run) -> Error:
        """Return how far a way to run the stage is from the model as exported.

        Args:
            run: takes and gives tensors in host memory; told the number of rows.

        Raises:
            StageLoadFailed: it is further off than the options allow.
        """
        if self._exact:
            return Error()
        error = difference(run(self._inputs, min(self.stage.batch, _CHECKED_ROWS)), self._expected)
        limit = self.stage.execution.error_limit
        if not error.largest <= limit:
            raise StageLoadFailed(
                f"{self.stage.name}: {self.stage.execution.precision} differs from the model as "
                f"exported by {error.largest:.1e} of the largest value (rms {error.rms:.1e}); "
                f"max_error allows {limit:g}"
            )
        return error

    def computation(
        self, error: Error, *, launched: str = "plain", remark: str = ""
    ) -> Computation:
        """Say how the stage is computed, once that is decided."""
        options = self.stage.execution
        result = Computation(
            compiled="inductor" if self.is_compiled else "eager",
            launched=launched,
            precision=options.precision,
            memory_format=options.memory_format,
            max_error=error.largest,
            rms_error=error.rms,
            remark="; ".join(filter(None, (self._program.remark, remark))),
        )
        _log.info("%s: %s", self.stage.name, result.words)
        return result

    def arrange(self, tensors: Sequence[Tensor], samples: int) -> tuple[Tensor, ...]:
        """Return a batch's inputs in the stage's order.

        Raises:
            InvalidInput: they do not fit the stage.
        """
        return ordered(tensors, self.stage.inputs, samples)

    def named(self, outputs: Sequence[torch.Tensor]) -> tuple[Tensor, ...]:
        """Return outputs in host memory as what travels."""
        specs = self.stage.outputs
        return tuple(from_torch(spec.name, each) for spec, each in zip(specs, outputs, strict=True))

    @torch.inference_mode()
    def _reference(self, chain: Chain) -> list[torch.Tensor]:
        """Return what the model as exported makes of the fixed inputs."""
        set_float32_precision(ExecutionOptions())
        inputs = [each.to(self.device) for each in self._inputs]
        try:
            outputs = chain(*inputs)
        except torch.OutOfMemoryError:
            raise
        except DOES_NOT_RUN as error:
            raise StageLoadFailed(f"{self.stage.name} does not run: {error}") from error
        return [each.cpu() for each in outputs]


def _load(stage: Stage, block: Block, device: torch.device) -> torch.nn.Module:
    content = stage.read(block)
    try:
        return load_program(content, str(stage.directory / block.file), device)
    except InvalidGraph as error:
        raise StageLoadFailed(str(error)) from error

"""A stage as exported programs on one torch device. Imports torch; only executors import this."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch.export.passes import move_to_device_pass
from torch.fx.graph import CodeGen

from penstock.domain.blocks import Block
from penstock.domain.errors import InvalidInput, StageLoadFailed
from penstock.domain.execution import Computation, ExecutionOptions
from penstock.domain.tensors import Tensor
from penstock.domain.units import Bytes
from worker.executors.accuracy import Error, difference, fixed_inputs
from worker.executors.base import ordered
from worker.executors.compiling import compiled, reason_of, use_disk_cache
from worker.executors.conversion import (
    IMAGE_AXES,
    convert,
    half_type,
    set_float32_precision,
)
from worker.executors.tensors import DTYPES, from_torch
from worker.stages import Stage

Run: TypeAlias = Callable[[Sequence[torch.Tensor], int], Sequence[torch.Tensor]]

# What does not run raises one of these, out of torch or out of a block.
DOES_NOT_RUN = (RuntimeError, ValueError, InvalidInput)
_CHECKED_ROWS = 4

_log = logging.getLogger(__name__)


class Chain(torch.nn.Module):
    """Blocks chained by the names of their tensors.

    Takes and gives the datatypes that travel, whatever it computes in.

    Args:
        stage: its blocks.
        programs: one for each block.
    """

    def __init__(self, stage: Stage, programs: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.programs = torch.nn.ModuleList(programs)
        self.compute_type: torch.dtype | None = None
        self.channels_last = False
        self._inputs = [spec.name for spec in stage.inputs]
        self._outputs = [(spec.name, DTYPES[spec.datatype]) for spec in stage.outputs]
        self._names = [
            ([one.name for one in each.inputs], [one.name for one in each.outputs], each.file)
            for each in stage.blocks
        ]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the stage's outputs; both in the stage's order."""
        values = dict(zip(self._inputs, [self._enter(each) for each in inputs], strict=True))
        for (taken, made, file), program in zip(self._names, self.programs, strict=True):
            outputs = _as_tensors(program(*[values[name] for name in taken]))
            if len(outputs) != len(made):
                raise InvalidInput(file, "outputs", str(len(made)), str(len(outputs)))
            values = dict(zip(made, outputs, strict=True))
        return tuple([values[name].to(dtype).contiguous() for name, dtype in self._outputs])

    def _enter(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.compute_type is not None and tensor.dtype == torch.float32:
            tensor = tensor.to(self.compute_type)
        if self.channels_last and tensor.dim() == IMAGE_AXES:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


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
        use_disk_cache()
        options = stage.execution
        self.stage = stage
        self.device = device
        self.remark = ""
        compiles = options.compiles(by_default=compile_by_default)
        as_exported = (options.precision, options.memory_format) == ("fp32", "contiguous")
        self._exact = as_exported and not compiles
        self._chain = Chain(stage, [_load(stage, block, device) for block in stage.blocks])
        self._inputs = fixed_inputs(stage.inputs, min(stage.batch, _CHECKED_ROWS))
        self._expected = [] if self._exact else self._reference()
        set_float32_precision(options)
        convert(self._chain, options)
        self._chain.compute_type = half_type(options)
        self._chain.channels_last = options.memory_format == "channels_last"
        self._compiled = compiled(self._chain, self.weight_bytes) if compiles else None

    @property
    def weight_bytes(self) -> Bytes:
        """What the weights take on the device."""
        tensors = (*self._chain.parameters(), *self._chain.buffers())
        return sum(each.numel() * each.element_size() for each in tensors)

    @property
    def is_compiled(self) -> bool:
        """Whether it runs compiled: at each batch size as long as that takes when it is new."""
        return self._compiled is not None

    @torch.inference_mode()
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the stage's outputs.

        Args:
            inputs: on the device, in the stage's order.
        """
        program = self._chain if self._compiled is None else self._compiled
        outputs: tuple[torch.Tensor, ...] = program(*inputs)
        return outputs

    def first_run(self, inputs: Sequence[torch.Tensor], samples: int) -> None:
        """Run once, so that later runs of that batch size take no longer than they have to.

        A stage that cannot be compiled runs as it is from then on, and `remark` says why.

        Raises:
            StageLoadFailed: it does not run either way.
        """
        if self._compiled is not None and self._compiles(inputs):
            return
        self._compiled = None
        try:
            self.run(inputs)
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
            compiled="eager" if self._compiled is None else "inductor",
            launched=launched,
            precision=options.precision,
            memory_format=options.memory_format,
            max_error=error.largest,
            rms_error=error.rms,
            remark="; ".join(filter(None, (self.remark, remark))),
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

    def _compiles(self, inputs: Sequence[torch.Tensor]) -> bool:
        try:
            self.run(inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler raises what it likes
            self.remark = f"not compiled: {reason_of(error)}"
            _log.warning("%s: %s", self.stage.name, self.remark)
            return False
        return True

    @torch.inference_mode()
    def _reference(self) -> list[torch.Tensor]:
        """Return what the model as exported makes of the fixed inputs."""
        set_float32_precision(ExecutionOptions())
        inputs = [each.to(self.device) for each in self._inputs]
        try:
            outputs = self._chain(*inputs)
        except torch.OutOfMemoryError:
            raise
        except DOES_NOT_RUN as error:
            raise StageLoadFailed(f"{self.stage.name} does not run: {error}") from error
        return [each.cpu() for each in outputs]


def _load(stage: Stage, block: Block, device: torch.device) -> torch.nn.Module:
    content = stage.read(block)
    try:
        program = move_to_device_pass(torch.export.load(io.BytesIO(content)), device)
        return _unchecked(program)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StageLoadFailed(f"{stage.directory / block.file}: {reason}") from error


def _unchecked(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """Return a program that takes tensors and returns a tuple of them, and looks at neither.

    Export's own module checks structure and shapes at each call, for longer than a small block
    computes; a batch was checked against the stage already.
    """
    module = program.module(check_guards=False)
    graph = module.graph
    graph.set_codegen(CodeGen())
    return torch.fx.GraphModule(module, graph)


def _as_tensors(outputs: object) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, (tuple, list)):
        return [each for each in outputs if isinstance(each, torch.Tensor)]
    raise InvalidInput("block", "outputs", "tensors", type(outputs).__name__)

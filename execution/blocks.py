"""Exported blocks as torch programs on a device, one after the other, as they were exported.

Knows files only by their content: who reads them checks their digests.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch.export.passes import move_to_device_pass
from torch.fx.graph import CodeGen

from execution.compiling import use_disk_cache
from execution.conversion import IMAGE_AXES, convert, half_type
from execution.datatypes import DTYPES
from penstock.domain.blocks import Block
from penstock.domain.errors import InvalidGraph, InvalidInput
from penstock.domain.execution import ExecutionOptions


class Chain(torch.nn.Module):
    """Consecutive blocks, chained by the names of their tensors.

    Takes and gives the datatypes that travel, whatever it computes in.

    Args:
        blocks: at least one.
        programs: one for each block.
    """

    def __init__(self, blocks: Sequence[Block], programs: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.programs = torch.nn.ModuleList(programs)
        self._compute_type: torch.dtype | None = None
        self._channels_last = False
        self._inputs = [spec.name for spec in blocks[0].inputs]
        self._outputs = [(spec.name, DTYPES[spec.datatype]) for spec in blocks[-1].outputs]
        self._names = [
            ([one.name for one in each.inputs], [one.name for one in each.outputs], each.file)
            for each in blocks
        ]

    def convert(self, options: ExecutionOptions) -> None:
        """Compute with another precision and memory format from now on."""
        convert(self, options)
        self._compute_type = half_type(options)
        self._channels_last = options.memory_format == "channels_last"

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of the last block; inputs are those of the first, in its order."""
        values = dict(zip(self._inputs, [self._enter(each) for each in inputs], strict=True))
        for (taken, made, file), program in zip(self._names, self.programs, strict=True):
            outputs = _as_tensors(program(*[values[name] for name in taken]))
            if len(outputs) != len(made):
                raise InvalidInput(file, "outputs", str(len(made)), str(len(outputs)))
            values = dict(zip(made, outputs, strict=True))
        return tuple([values[name].to(dtype).contiguous() for name, dtype in self._outputs])

    def _enter(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._compute_type is not None and tensor.dtype == torch.float32:
            tensor = tensor.to(self._compute_type)
        if self._channels_last and tensor.dim() == IMAGE_AXES:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def load_program(content: bytes, source: str, device: torch.device) -> torch.fx.GraphModule:
    """Bring an exported program to a device.

    Args:
        content: of its file.
        source: what errors call the file.

    Raises:
        InvalidGraph: it is no exported program.
        OutOfMemoryError: the device is too small.
    """
    use_disk_cache()  # early: what reads programs in torch looks for the compiler's cache
    try:
        return _unchecked(move_to_device_pass(torch.export.load(io.BytesIO(content)), device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidGraph(source, "", "an exported program", reason) from error


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

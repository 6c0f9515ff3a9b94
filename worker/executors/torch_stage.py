"""A stage as exported programs on one torch device. Imports torch; only executors import this."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch.export.passes import move_to_device_pass

from penstock.domain.blocks import Block
from penstock.domain.errors import InvalidInput, StageLoadFailed
from penstock.domain.tensors import Tensor
from worker.executors.base import ordered, zeros
from worker.stages import Stage

Program: TypeAlias = Callable[..., object]

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "BOOL": torch.bool,
        "UINT8": torch.uint8,
        "UINT16": torch.uint16,
        "UINT32": torch.uint32,
        "UINT64": torch.uint64,
        "INT8": torch.int8,
        "INT16": torch.int16,
        "INT32": torch.int32,
        "INT64": torch.int64,
        "FP16": torch.float16,
        "BF16": torch.bfloat16,
        "FP32": torch.float32,
        "FP64": torch.float64,
    }
)
DATATYPES: Mapping[torch.dtype, str] = MappingProxyType(
    {each: name for name, each in DTYPES.items()}
)


class TorchStage:
    """Blocks chained by the names of their tensors.

    Args:
        stage: where the blocks lie.
        device: where they are to run.

    Raises:
        StageLoadFailed: a block cannot be read or does not run.
    """

    def __init__(self, stage: Stage, device: torch.device) -> None:
        self._stage = stage
        self._device = device
        self._programs = [_load(stage, block, device) for block in stage.blocks]

    def warm_up(self) -> None:
        """Run once at every batch size up to the planned one.

        Raises:
            StageLoadFailed: it does not run.
        """
        for samples in range(1, self._stage.batch + 1):
            try:
                self.run([to_torch(each) for each in zeros(self._stage.inputs, samples)])
            except (RuntimeError, ValueError, InvalidInput) as error:
                raise StageLoadFailed(
                    f"{self._stage.name} does not run at batch {samples}: {error}"
                ) from error

    def arrange(self, tensors: Sequence[Tensor], samples: int) -> list[torch.Tensor]:
        """Return a batch's inputs in the stage's order, in host memory of their own."""
        return [to_torch(each) for each in ordered(tensors, self._stage.inputs, samples)]

    @torch.inference_mode()
    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the stage's outputs on its device.

        Args:
            inputs: in the stage's order.
        """
        names = [spec.name for spec in self._stage.inputs]
        values = {
            name: each.to(self._device, non_blocking=True)
            for name, each in zip(names, inputs, strict=True)
        }
        for block, program in zip(self._stage.blocks, self._programs, strict=True):
            outputs = _as_tensors(program(*(values[spec.name] for spec in block.inputs)))
            names = [spec.name for spec in block.outputs]
            if len(outputs) != len(names):
                raise InvalidInput(block.file, "outputs", str(len(names)), str(len(outputs)))
            values = dict(zip(names, outputs, strict=True))
        return [values[spec.name] for spec in self._stage.outputs]

    def named(self, outputs: Sequence[torch.Tensor]) -> tuple[Tensor, ...]:
        """Return outputs in host memory as what travels."""
        return tuple(
            from_torch(spec.name, each)
            for spec, each in zip(self._stage.outputs, outputs, strict=True)
        )


def to_torch(tensor: Tensor) -> torch.Tensor:
    """Copy raw bytes into a tensor of its own: aligned, and safe from writes in place."""
    result = torch.empty(tensor.shape, dtype=DTYPES[tensor.datatype])
    if result.numel() > 0:
        _bytes_of(result)[:] = memoryview(tensor.data)
    return result


def from_torch(name: str, tensor: torch.Tensor) -> Tensor:
    """Return a tensor in host memory as raw bytes, without a copy where rows lie in order."""
    kept = tensor.detach().contiguous()
    datatype = DATATYPES[kept.dtype]
    return Tensor(name, datatype, tuple(kept.shape), _bytes_of(kept))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.reshape(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data


def _load(stage: Stage, block: Block, device: torch.device) -> Program:
    content = stage.read(block)
    try:
        program = torch.export.load(io.BytesIO(content))
        return move_to_device_pass(program, device).module()
    except Exception as error:  # whatever a foreign file makes torch raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StageLoadFailed(f"{stage.directory / block.file}: {reason}") from error


def _as_tensors(outputs: object) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, (tuple, list)):
        return [each for each in outputs if isinstance(each, torch.Tensor)]
    raise InvalidInput("block", "outputs", "tensors", type(outputs).__name__)

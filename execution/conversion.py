"""Changes an exported module to the precision and memory format it is to compute with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.fx import GraphModule

from penstock.domain.execution import ExecutionOptions, Precision

IMAGE_AXES = 4

_HALF: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"fp16": torch.float16, "bf16": torch.bfloat16}
)


def half_type(options: ExecutionOptions) -> torch.dtype | None:
    """Return the type that 32-bit floats are computed in instead; None: they stay."""
    return _HALF.get(options.precision)


def convert(module: torch.nn.Module, options: ExecutionOptions) -> None:
    """Change weights, and types written into the exported programs, in place."""
    half = half_type(options)
    if half is not None:
        for each in module.modules():
            if isinstance(each, GraphModule):
                _retype(each, half)
    if half is not None or options.memory_format == "channels_last":
        _convert_weights(module, half, channels_last=options.memory_format == "channels_last")


def set_float32_precision(options: ExecutionOptions) -> None:
    """Let this process compute 32-bit floats with TF32 on tensor cores, or exactly.

    Holds for what is run or captured from now on. torch's newer settings by operator must not be
    mixed with these: it then refuses to compile.
    """
    tf32 = options.precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def _convert_weights(
    module: torch.nn.Module, half: torch.dtype | None, *, channels_last: bool
) -> None:
    """Put converted tensors in the place of weights; what two modules share stays shared.

    Not into the old ones: those may be views, which compilers then find at odds with their bases.
    """
    converted: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        own = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
        own_buffers = dict(owner.named_buffers(recurse=False, remove_duplicate=False))
        for name, tensor in {**own, **own_buffers}.items():
            if id(tensor) not in converted:
                new = _converted(tensor.detach(), half, channels_last=channels_last)
                is_buffer = name in own_buffers
                converted[id(tensor)] = new if is_buffer else _weight(new)
            setattr(owner, name, converted[id(tensor)])


def _converted(
    tensor: torch.Tensor, half: torch.dtype | None, *, channels_last: bool
) -> torch.Tensor:
    if half is not None and tensor.dtype == torch.float32:
        tensor = tensor.to(half)
    if channels_last and tensor.dim() == IMAGE_AXES:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _weight(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


def _retype(program: GraphModule, half: torch.dtype) -> None:
    """Replace 32-bit floats that a program names, and drop its checks of types."""

    def replaced(value: Any) -> Any:  # noqa: ANN401 - arguments of any operator
        return half if value is torch.float32 else value

    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
            continue
        node.args = tuple(map(replaced, node.args))
        node.kwargs = {name: replaced(each) for name, each in node.kwargs.items()}
    program.recompile()

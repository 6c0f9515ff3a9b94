"""Tensors as they travel and as torch has them: types, bytes, rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.tensors import Tensor

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


def to_torch(tensor: Tensor, *, pinned: bool = False) -> torch.Tensor:
    """Copy raw bytes into a tensor of its own: aligned, and safe from writes in place.

    Args:
        pinned: into page-locked memory, from which a device copies by itself.
    """
    dtype = DTYPES[tensor.datatype]
    result = host_empty(tensor.shape, dtype) if pinned else torch.empty(tensor.shape, dtype=dtype)
    if result.numel() > 0:
        # numpy copies without the interpreter's lock; other threads go on.
        np.copyto(_bytes_of(result), np.frombuffer(tensor.data, dtype=np.uint8))
    return result


def host_empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return page-locked memory; torch keeps it for the next one when it is free again."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def from_torch(name: str, tensor: torch.Tensor) -> Tensor:
    """Return a tensor in host memory as raw bytes, without a copy where rows lie in order."""
    kept = tensor.detach().contiguous()
    data = _bytes_of(kept).data if kept.numel() else memoryview(b"")
    return Tensor(name, DATATYPES[kept.dtype], tuple(kept.shape), data)


def batch_axes(specs: Sequence[TensorSpec]) -> tuple[int | None, ...]:
    """Return where each tensor has its batch axis; None: nowhere."""
    return tuple(each.shape.index(DYNAMIC) if DYNAMIC in each.shape else None for each in specs)


def first_rows(tensor: torch.Tensor, axis: int | None, samples: int) -> torch.Tensor:
    """Return a view of the first rows of a batch; all of a tensor without a batch axis."""
    return tensor if axis is None else tensor.narrow(axis, 0, samples)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    flat: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return flat

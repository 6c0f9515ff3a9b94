"""Tensors as they travel and as torch has them: bytes, rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from execution.datatypes import DATATYPES, DTYPES
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.tensors import Tensor, piece_size


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


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Queue a copy into page-locked memory on the current stream."""
    return host_empty(tensor.shape, tensor.dtype).copy_(tensor, non_blocking=True)


def gathered(tensor: Tensor, device: torch.device, stream: int) -> torch.Tensor:
    """Queue the copies that put a tensor together on a device, wherever its pieces are.

    Args:
        tensor: in pieces.
        device: where it is to be.
        stream: handle of the stream to copy on, which must be the current one.
    """
    result = torch.empty(tensor.shape, dtype=DTYPES[tensor.datatype], device=device)
    flat, start = result.reshape(-1).view(torch.uint8), 0
    for piece in tensor.pieces:
        size = piece_size(piece)
        if isinstance(piece, bytes | memoryview):
            # Torch keeps page-locked memory until the copies that it knows of are done.
            pinned = to_torch(Tensor(tensor.name, "UINT8", (size,), piece), pinned=True)
            flat[start : start + size].copy_(pinned, non_blocking=True)
        else:
            piece.copy_to(result.data_ptr() + start, stream)
        start += size
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


def some_rows(tensor: torch.Tensor, axis: int | None, first: int, count: int) -> torch.Tensor:
    """Return a view of some rows of a batch; all of a tensor without a batch axis."""
    return tensor if axis is None else tensor.narrow(axis, first, count)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    flat: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return flat

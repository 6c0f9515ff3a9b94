"""Check that a model cut into blocks still answers what it answered whole.

Knows saved blocks and example inputs. Knows nothing of how the cuts were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from penstock.domain.blocks import BlockPartition
from penstock.domain.errors import InvariantViolation
from profiler.store import load_block

CHECKED_BATCHES = (1, 3)
# Wider than rounding for 32 bits and up; half precision keeps about three digits.
TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2


def check_blocks(
    module: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    directory: Path,
    partition: BlockPartition,
) -> float:
    """Run the saved blocks and the whole model on the same inputs; return the largest error.

    Args:
        module: the whole model; takes the inputs in order and returns a tuple of tensors.

    Raises:
        InvariantViolation: an output differs by more than rounding.
    """
    blocks = [load_block(directory, partition, index) for index in range(len(partition.blocks))]
    worst = 0.0
    for batch in CHECKED_BATCHES:
        tensors = [resized(each, batch) for each in inputs]
        with torch.inference_mode():
            expected, found = module(*tensors), tuple(tensors)
            for block in blocks:
                found = block(*found)
        for spec, left, right in zip(partition.outputs, expected, found, strict=True):
            error = relative_error(left, right)
            if error > tolerance(left):
                changed = f"{spec.name} by {error:.2g} at batch {batch}"
                raise InvariantViolation(f"the blocks of {partition.model} change {changed}")
            worst = max(worst, error)
    return worst


def relative_error(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Return the largest difference over the largest expected value.

    Infinite where shapes differ or one of the two is no number where the other is one.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    left, right = expected.double(), found.double()
    finite = left.isfinite()
    same_odd = torch.allclose(left[~finite], right[~finite], equal_nan=True)
    if not (torch.equal(finite, right.isfinite()) and same_odd):
        return float("inf")
    if not finite.any():
        return 0.0
    difference = (left - right)[finite].abs().max().item()
    scale = left[finite].abs().max().item()
    return difference / scale if scale else difference


def tolerance(tensor: torch.Tensor) -> float:
    """Return how far an output may differ from the unsplit model's."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return HALF_TOLERANCE if half else TOLERANCE


def resized(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """Return example rows repeated or left out until there are `batch` of them."""
    copies = -(-batch // len(tensor))
    return torch.cat([tensor] * copies)[:batch]

"""How far two computations of the same thing differ, on an input that is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from execution.datatypes import DTYPES
from penstock.domain.blocks import TensorSpec
from worker.executors.base import shape_at

SEED = 20260101


@dataclass(frozen=True, slots=True)
class Error:
    """A difference between outputs; the worst output counts.

    Attributes:
        largest: of one value, relative to the largest value.
        rms: root mean square, relative to that of the values.
    """

    largest: float = 0.0
    rms: float = 0.0


def fixed_inputs(specs: Sequence[TensorSpec], samples: int) -> list[torch.Tensor]:
    """Return inputs in host memory that depend on shapes alone.

    Floats are standard normal. Integers are zeros and ones: valid as masks and in any vocabulary.
    """
    generator = torch.Generator().manual_seed(SEED)
    return [_fixed(spec, samples, generator) for spec in specs]


def difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> Error:
    """Return how far outputs are from what was expected; not a number counts as infinite."""
    errors = [_difference(a, b) for a, b in zip(found, expected, strict=True) if b.numel()]
    return Error(
        max((each.largest for each in errors), default=0.0),
        max((each.rms for each in errors), default=0.0),
    )


def _fixed(spec: TensorSpec, samples: int, generator: torch.Generator) -> torch.Tensor:
    shape, dtype = shape_at(spec, samples), DTYPES[spec.datatype]
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(2, shape, generator=generator).to(dtype)


def _difference(found: torch.Tensor, expected: torch.Tensor) -> Error:
    a, b = found.detach().cpu().double(), expected.detach().cpu().double()
    apart = (a - b).abs()
    return Error(_ratio(apart.max(), b.abs().max()), _ratio(_rms(apart), _rms(b)))


def _rms(values: torch.Tensor) -> torch.Tensor:
    return values.square().mean().sqrt()


def _ratio(error: torch.Tensor, size: torch.Tensor) -> float:
    if error == 0:
        return 0.0
    ratio = float(error / size)
    return ratio if ratio < float("inf") else float("inf")  # not a number is not less

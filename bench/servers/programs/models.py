"""The two models that every server serves: what goes in, what comes out, and the computation.

Runs in each server's own environment, so it needs nothing but numpy, and torch for the CNN. Knows
no server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Rows: TypeAlias = NDArray[np.float32]
Answer: TypeAlias = Callable[[Rows], Rows]

IDENTITY, CNN = "identity", "cnn"
SIDE, CLASSES, CHANNELS = 8, 10, 16


@dataclass(frozen=True, slots=True)
class Shape:
    """Names and sizes of a model's one input and one output; sizes without the batch axis."""

    input: str
    input_row: tuple[int, ...]
    output: str
    output_row: tuple[int, ...]


SHAPES = {
    IDENTITY: Shape("x", (256,), "y", (256,)),  # 1 KiB
    CNN: Shape("images", (1, SIDE, SIDE), "scores", (CLASSES,)),
}


def sample(model: str) -> Rows:
    """Return one row to ask a model with, always the same."""
    row = SHAPES[model].input_row
    return np.random.default_rng(0).random((1, *row), dtype=np.float32)


def load(model: str) -> Answer:
    """Return what computes a model's answer to some rows, ready to run."""
    if model == IDENTITY:
        return lambda rows: rows
    import torch

    torch.set_num_threads(1)  # as every server here has: its workers share two cores
    cnn = make_cnn()

    def answer(rows: Rows) -> Rows:
        with torch.inference_mode():
            scores: Rows = cnn(torch.from_numpy(np.array(rows))).numpy()
        return scores

    answer(sample(model))
    return answer


def make_cnn() -> torch.nn.Sequential:
    """Return a small CNN for digits whose weights are the same everywhere."""
    import torch
    from torch import nn

    cnn = nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(CHANNELS * SIDE * SIDE, CLASSES),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in cnn.parameters():
            weights.copy_(0.1 * torch.randn(weights.shape, generator=generator))
    return cnn.eval()


def rows_of(model: str, data: bytes) -> Rows:
    """Return the rows that raw bytes hold."""
    return np.frombuffer(data, dtype=np.float32).reshape(-1, *SHAPES[model].input_row)


def answered_rows(model: str, data: bytes) -> Rows:
    """Return the rows that the raw bytes of an answer hold."""
    return np.frombuffer(data, dtype=np.float32).reshape(-1, *SHAPES[model].output_row)

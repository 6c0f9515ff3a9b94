"""The demo's model and data: a small residual CNN and scikit-learn's scanned digits.

The images are real (1,797 handwritten digits, 8 x 8 grey levels, from the UCI repository, shipped
inside scikit-learn). Knows nothing of serving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

CLASSES = 10
SIDE = 8
GREY_LEVELS = 16
IMAGES = "images"
SCORES = "scores"


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity, or a 1 x 1 where the width changes."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.beside: nn.Module = nn.Identity()
        if channels_in != channels:
            self.beside = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, shape (batch, channels, 8, 8)."""
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return torch.relu(y + self.beside(x))


class LightBlock(nn.Module):
    """A 1 x 1 convolution to a quarter of the channels and one back, beside an identity.

    It moves nearly as many bytes as a `ResidualBlock` of its width but computes a twentieth: the
    kind of layer that a slow device runs almost as well as a fast one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(channels // 4)
        self.expand = nn.Conv2d(channels // 4, channels, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, of the input's shape."""
        y = torch.relu(self.squeeze_norm(self.squeeze(x)))
        return torch.relu(self.expand_norm(self.expand(y)) + x)


class DigitsNet(nn.Module):
    """Stem, three residual blocks, six light ones and a linear head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.dense = nn.Sequential(
            ResidualBlock(width, width),
            ResidualBlock(width, width),
            ResidualBlock(width, 2 * width),
        )
        self.light = nn.Sequential(*(LightBlock(2 * width) for _ in range(6)))
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores of shape (batch, 10) for images of shape (batch, 1, 8, 8)."""
        features = self.light(self.dense(torch.relu(self.stem(images))))
        scores: torch.Tensor = self.head(features.mean(dim=(2, 3)))
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images as float32 of shape (n, 1, 8, 8) in [0, 1], labels as int64 of shape (n,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_digits(seed: int = 0) -> Digits:
    """Return the digits, three quarters to train and one to test, each class in proportion."""
    bunch = load_digits()
    images = (bunch.images / GREY_LEVELS).astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)
    return Digits(
        train_images=parts[0],
        test_images=parts[1],
        train_labels=parts[2],
        test_labels=parts[3],
    )


def train(
    digits: Digits,
    *,
    epochs: int = 10,
    batch: int = 128,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> DigitsNet:
    """Train from scratch with Adam and a one-cycle learning rate.

    Args:
        digits: trained on its training part only.
        epochs: passes over it.
        batch: images per step.
        seed: of weights and order; equal seeds give equal models on one machine.
        on_epoch: told the epoch (from 1) and its mean loss.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    model = DigitsNet()
    images = torch.from_numpy(digits.train_images)
    labels = torch.from_numpy(digits.train_labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps = -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1e-2, epochs=epochs, steps_per_epoch=steps
    )
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for chosen in torch.split(torch.randperm(len(images)), batch):
            loss = loss_of(model(images[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        on_epoch(epoch, total / len(images))
    return model.eval()


def scores_of(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the model's scores, computed here and now, of shape (n, 10)."""
    with torch.inference_mode():
        scores: np.ndarray = model(torch.from_numpy(images)).numpy()
    return scores


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of rows whose largest score is at the label."""
    return float((scores.argmax(axis=1) == labels).mean())


def build() -> tuple[nn.Module, dict[str, torch.Tensor], list[str]]:
    """Train the model: a factory as `penstock cut demo.digits:build` takes it.

    Returns:
        The module, an example of its inputs by name, and the names of its outputs.
    """
    digits = read_digits()
    return train(digits), {IMAGES: torch.from_numpy(digits.test_images[:2])}, [SCORES]

"""A small model with images inside, exported as one block, for what executors do with options."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from penstock.domain.blocks import BlockPartition, TensorSpec
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import ModelName
from penstock.domain.tensors import Tensor
from tests.support.repositories import a_block, write_partition
from worker.executors.tensors import from_torch
from worker.stages import Stage, StageOrder, open_stage

BATCH = 4
IMAGE = (3, 8, 8)


class Small(torch.nn.Module):
    """Convolution, norm, a cast to 32 bits as exporters leave them, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.convolution(images)))
        scores: torch.Tensor = self.head(features.mean(dim=(2, 3)).to(torch.float32))
        return scores


class Waiting(Small):
    """Looks at its own values, which cannot be captured."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        kept = images.flatten().nonzero().shape[0]
        return super().forward(images) + 0 * kept


def write_model(repository: Path, module: torch.nn.Module | None = None) -> None:
    """Write a model ``m`` of one block."""
    torch.manual_seed(0)
    model = (module or Small()).eval()
    directory = repository / "m" / "1"
    directory.mkdir(parents=True)
    batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
    example = (torch.randn(2, *IMAGE),)
    program = torch.export.export(model, example, dynamic_shapes=batch)
    path = directory / "block_00.pt2"
    torch.export.save(program, path)
    images = TensorSpec(name="images", datatype="FP32", shape=(-1, *IMAGE))
    scores = TensorSpec(name="scores", datatype="FP32", shape=(-1, 5))
    block = a_block(
        0,
        inputs=(images,),
        outputs=(scores,),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    write_partition(
        repository,
        BlockPartition(
            model=ModelName("m"),
            version="1",
            inputs=(images,),
            outputs=(scores,),
            blocks=(block,),
            cut_bytes=(),
            band=(0.0, 2.0),
        ),
    )


def a_stage(repository: Path, options: ExecutionOptions, batch: int = BATCH) -> Stage:
    """Return the stage with some options."""
    order = StageOrder(
        model="m",
        version="1",
        first_block=0,
        end_block=1,
        batch=batch,
        latency_us_by_batch=(1,) * batch,
        execution=options,
    )
    return open_stage(repository, order)


def images(rows: int, seed: int = 3) -> torch.Tensor:
    """Return some images."""
    return torch.randn(rows, *IMAGE, generator=torch.Generator().manual_seed(seed))


def as_input(rows: torch.Tensor) -> tuple[Tensor, ...]:
    """Return images as they arrive."""
    return (from_torch("images", rows),)


def scores_of(repository: Path, rows: torch.Tensor) -> torch.Tensor:
    """Return what the model as exported makes of images."""
    program = torch.export.load(repository / "m/1/block_00.pt2").module()
    with torch.inference_mode():
        scores: torch.Tensor = program(rows)
    return scores


def as_tensor(tensor: Tensor) -> torch.Tensor:
    """Return 32-bit floats that an executor made."""
    values = torch.frombuffer(bytearray(tensor.data), dtype=torch.float32)
    return values.reshape(tensor.shape)

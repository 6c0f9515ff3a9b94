"""A stage as a worker is asked to run it, and the files it is read from, with their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from penstock.domain.blocks import Block, BlockPartition, TensorSpec
from penstock.domain.errors import PenstockError, StageLoadFailed
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import ModelName
from penstock.domain.units import Micros
from penstock.formats.graphs import read_blocks
from penstock.formats.layout import BLOCKS_FILE, model_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """What the frontend asks a worker to load.

    Attributes:
        blocks_sha256: digest `blocks.json` must have; empty: any.
        latency_us_by_batch: planned latency at batch 1, 2, … `batch`.
    """

    model: str
    version: str
    first_block: int
    end_block: int
    batch: int
    latency_us_by_batch: tuple[Micros, ...]
    blocks_sha256: str = ""
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    @property
    def name(self) -> str:
        """What messages call the stage."""
        return f"{self.model}/{self.version} blocks {self.first_block}-{self.end_block - 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Consecutive blocks that lie in a directory, and how they are to be run.

    Attributes:
        name: what messages call it.
        blocks: at least one.
    """

    name: str
    directory: Path
    blocks: tuple[Block, ...]
    batch: int
    latency_us_by_batch: tuple[Micros, ...]
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""
        return self.blocks[0].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it makes."""
        return self.blocks[-1].outputs

    def read(self, block: Block) -> bytes:
        """Return the bytes of a block's file.

        Raises:
            StageLoadFailed: they are not there, or not those that were planned with.
        """
        content = _read(self.directory / block.file)
        _check_digest(self.directory / block.file, content, block.sha256)
        return content


def open_stage(repository: Path, order: StageOrder) -> Stage:
    """Find a stage in the model repository. Reads `blocks.json` only.

    Raises:
        StageLoadFailed: it is not there, or not what was planned with.
    """
    directory = model_directory(repository, ModelName(order.model), order.version)
    path = directory / BLOCKS_FILE
    content = _read(path)
    if order.blocks_sha256:
        _check_digest(path, content, order.blocks_sha256)
    try:
        partition = read_blocks(content.decode(errors="replace"), str(path))
    except PenstockError as error:
        raise StageLoadFailed(str(error)) from error
    return Stage(
        name=order.name,
        directory=directory,
        blocks=_chosen(partition, order),
        batch=order.batch,
        latency_us_by_batch=order.latency_us_by_batch,
        execution=order.execution,
    )


def _chosen(partition: BlockPartition, order: StageOrder) -> tuple[Block, ...]:
    count = len(partition.blocks)
    if not 0 <= order.first_block < order.end_block <= count:
        raise StageLoadFailed(f"{order.name}: the model has blocks 0-{count - 1}")
    if order.batch < 1:
        raise StageLoadFailed(f"{order.name}: a batch of {order.batch} cannot be run")
    blocks = partition.blocks[order.first_block : order.end_block]
    for before, after in pairwise(blocks):
        missing = {each.name for each in after.inputs} - {each.name for each in before.outputs}
        if missing:
            raise StageLoadFailed(
                f"{order.name}: block {after.index} needs {', '.join(sorted(missing))}, "
                f"which block {before.index} does not give"
            )
    return blocks


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StageLoadFailed(f"{path}: {error.strerror}") from error


def _check_digest(path: Path, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise StageLoadFailed(
            f"{path}: expected sha256 {expected[:12]}…, found {found[:12]}…: "
            "it is not the file the plan was made with"
        )

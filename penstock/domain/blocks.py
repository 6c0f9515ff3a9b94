"""Blocks: contiguous layers saved as one file; the planner's atom."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.ids import ModelName
from penstock.domain.units import Bytes

DYNAMIC = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, Open Inference Protocol datatype and shape of a tensor.

    Attributes:
        datatype: ``FP32``, ``INT64``, ``BOOL`` …
        shape: with `DYNAMIC` (-1) where the batch size enters; for a model's own inputs and
            outputs the batch is the first axis.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers [first_layer, end_layer) as one exported program.

    Attributes:
        inputs: tensors it takes, by name from the model's inputs or earlier blocks' outputs.
        outputs: tensors later blocks (or the caller) need, made here or passed through.
        activation_bytes: largest amount of live activations for one sample inside the block.
        flops, moved_bytes: work and memory traffic of one sample, weights apart.
        launches: kernels started.
        file: name of the ``.pt2`` beside ``blocks.json``.
        sha256: digest of that file.
    """

    index: int
    first_layer: int
    end_layer: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops: int
    moved_bytes: Bytes
    launches: int
    activation_bytes: Bytes
    weight_bytes: Bytes
    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPartition:
    """A model as blocks in order; consecutive blocks form a stage.

    Attributes:
        inputs, outputs: the model's own, batch axis first.
        cut_bytes: bytes of one sample crossing the cut after block i; ``len(blocks) - 1``.
        band: the (low, high) latency band that was met, as multiples of an equal share.
    """

    model: ModelName
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    blocks: tuple[Block, ...]
    cut_bytes: tuple[Bytes, ...]
    band: tuple[float, float]

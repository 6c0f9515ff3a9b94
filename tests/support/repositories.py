"""Small models in a repository: real blocks, and blocks that are only described."""

from __future__ import annotations

import hashlib
from pathlib import Path

from penstock.domain.blocks import Block, BlockPartition, TensorSpec
from penstock.domain.ids import ModelName
from penstock.formats.graphs import write_blocks


def write_shapes_model(repository: Path, *, blocks: int = 2, width: int = 3) -> str:
    """Write a ``blocks.json`` without block files; return its digest."""
    spec = [
        TensorSpec(name=f"t{index}", datatype="FP32", shape=(-1, width))
        for index in range(blocks + 1)
    ]
    partition = BlockPartition(
        model=ModelName("m"),
        version="1",
        inputs=(spec[0],),
        outputs=(spec[-1],),
        blocks=tuple(
            a_block(index, inputs=(spec[index],), outputs=(spec[index + 1],), sha256="0" * 64)
            for index in range(blocks)
        ),
        cut_bytes=(4 * width,) * (blocks - 1),
        band=(0.0, 2.0),
    )
    return write_partition(repository, partition)


def a_block(
    index: int, *, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], sha256: str
) -> Block:
    return Block(
        index=index,
        first_layer=index,
        end_layer=index + 1,
        inputs=inputs,
        outputs=outputs,
        flops=1,
        moved_bytes=1,
        launches=1,
        activation_bytes=1,
        weight_bytes=1,
        file=f"block_{index:02d}.pt2",
        sha256=sha256,
    )


def write_partition(repository: Path, partition: BlockPartition) -> str:
    directory = repository / partition.model / partition.version
    directory.mkdir(parents=True, exist_ok=True)
    text = write_blocks(partition)
    (directory / "blocks.json").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def write_tiny_model(repository: Path, *, blocks: int = 2, width: int = 3) -> BlockPartition:
    """Export `blocks` small layers, one file each, with a batch axis of any size."""
    import torch

    generator = torch.Generator().manual_seed(0)
    directory = repository / "m" / "1"
    directory.mkdir(parents=True)
    names = [f"t{index}" for index in range(blocks + 1)]
    specs = [TensorSpec(name=name, datatype="FP32", shape=(-1, width)) for name in names]
    made: list[Block] = []
    for index in range(blocks):
        layer = torch.nn.Linear(width, width)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        path = directory / f"block_{index:02d}.pt2"
        example = (torch.zeros(2, width),)
        batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
        program = torch.export.export(
            torch.nn.Sequential(layer, torch.nn.ReLU()), example, dynamic_shapes=batch
        )
        torch.export.save(program, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        inputs, outputs = (specs[index],), (specs[index + 1],)
        made.append(a_block(index, inputs=inputs, outputs=outputs, sha256=digest))
    partition = BlockPartition(
        model=ModelName("m"),
        version="1",
        inputs=(specs[0],),
        outputs=(specs[-1],),
        blocks=tuple(made),
        cut_bytes=(4 * width,) * (blocks - 1),
        band=(0.0, 2.0),
    )
    write_partition(repository, partition)
    return partition


def unsplit(directory: Path, partition: BlockPartition, data: bytes, rows: int) -> bytes:
    """Return what the blocks make of some rows, one after the other in this process."""
    import torch

    width = partition.inputs[0].shape[1]
    value = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(rows, width)
    with torch.inference_mode():
        for block in partition.blocks:
            value = torch.export.load(directory / block.file).module()(value)
    return bytes(value.contiguous().numpy().data.cast("B"))

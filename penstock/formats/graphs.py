"""A model's structure: ``graph.json`` (layers) and ``blocks.json`` (what its files hold)."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.domain.blocks import DYNAMIC, Block, BlockPartition, TensorSpec
from penstock.domain.errors import InvalidGraph
from penstock.domain.graph import ModelGraph
from penstock.domain.tensors import DATATYPE_BYTES
from penstock.formats.checks import (
    check_any,
    check_at_least,
    check_each_at_least,
    check_length,
    check_name,
    check_sha256,
    check_text,
    check_unique,
)
from penstock.formats.documents import Document
from penstock.formats.sources import Source, inside, show

GRAPH = Document("penstock.graph/1", ModelGraph)
BLOCKS = Document("penstock.blocks/1", BlockPartition)


def read_graph(text: str, source: str) -> ModelGraph:
    """Read ``graph.json``.

    Raises:
        InvalidGraph: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidGraph)
    graph = GRAPH.read(text, where)
    check_name(where, "model", graph.model)
    check_any(where, "layers", graph.layers)
    for index, layer in enumerate(graph.layers):
        place = inside("layers", index)
        check_text(where, inside(place, "name"), layer.name)
        check_at_least(where, place, layer, flops=0, activation_bytes=0, weight_bytes=0, launches=0)
    check_unique(
        where,
        ((inside("layers", index, "name"), each.name) for index, each in enumerate(graph.layers)),
    )
    _check_cuts(where, graph.cut_bytes, len(graph.layers))
    return graph


def write_graph(graph: ModelGraph) -> str:
    """Write ``graph.json``."""
    return GRAPH.write(graph)


def read_blocks(text: str, source: str) -> BlockPartition:
    """Read ``blocks.json``.

    Raises:
        InvalidGraph: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidGraph)
    partition = BLOCKS.read(text, where)
    check_name(where, "model", partition.model)
    check_name(where, "version", partition.version)
    check_any(where, "blocks", partition.blocks)
    _check_tensors(where, "inputs", partition.inputs)
    _check_tensors(where, "outputs", partition.outputs)
    for index, block in enumerate(partition.blocks):
        _check_block(where, inside("blocks", index), block)
    _check_chain(where, partition)
    _check_flow(where, partition)
    _check_cuts(where, partition.cut_bytes, len(partition.blocks))
    low, high = partition.band
    if not 0 <= low <= high:
        raise where.invalid("band", "0 ≤ low ≤ high", f"{low}, {high}")
    return partition


def write_blocks(partition: BlockPartition) -> str:
    """Write ``blocks.json``."""
    return BLOCKS.write(partition)


def _check_cuts(source: Source, cut_bytes: tuple[int, ...], parts: int) -> None:
    check_length(source, "cut_bytes", cut_bytes, parts - 1, "one for each cut")
    check_each_at_least(source, "cut_bytes", cut_bytes, 0)


def _check_block(source: Source, place: str, block: Block) -> None:
    check_at_least(
        source,
        place,
        block,
        flops=0,
        moved_bytes=0,
        launches=0,
        activation_bytes=0,
        weight_bytes=0,
    )
    check_name(source, inside(place, "file"), block.file)
    check_sha256(source, inside(place, "sha256"), block.sha256)
    _check_tensors(source, inside(place, "inputs"), block.inputs)
    _check_tensors(source, inside(place, "outputs"), block.outputs)


def _check_tensors(source: Source, place: str, tensors: tuple[TensorSpec, ...]) -> None:
    check_any(source, place, tensors)
    for index, tensor in enumerate(tensors):
        within = inside(place, index)
        check_text(source, inside(within, "name"), tensor.name)
        if tensor.datatype not in DATATYPE_BYTES:
            expected = f"one of {', '.join(DATATYPE_BYTES)}"
            raise source.invalid(inside(within, "datatype"), expected, show(tensor.datatype))
        for axis, size in enumerate(tensor.shape):
            if size < 1 and size != DYNAMIC:
                expected = f"a size of at least 1, or {DYNAMIC} for the batch"
                raise source.invalid(inside(within, "shape", axis), expected, show(size))
    check_unique(source, _names(place, tensors))


def _check_chain(source: Source, partition: BlockPartition) -> None:
    end_layer = 0
    for index, block in enumerate(partition.blocks):
        place = inside("blocks", index)
        _check_equal(source, inside(place, "index"), block.index, index)
        _check_equal(source, inside(place, "first_layer"), block.first_layer, end_layer)
        if block.end_layer <= block.first_layer:
            expected = f"more than first_layer ({block.first_layer})"
            raise source.invalid(inside(place, "end_layer"), expected, show(block.end_layer))
        end_layer = block.end_layer
    check_unique(
        source,
        ((inside("blocks", index, "file"), b.file) for index, b in enumerate(partition.blocks)),
    )


def _check_flow(source: Source, partition: BlockPartition) -> None:
    known = {tensor.name for tensor in partition.inputs}
    made = "an input of the model or an output of an earlier block"
    for index, block in enumerate(partition.blocks):
        _check_known(source, inside("blocks", index, "inputs"), block.inputs, known, made)
        known |= {tensor.name for tensor in block.outputs}
    _check_known(source, "outputs", partition.outputs, known, "an output of a block")


def _check_known(
    source: Source, place: str, tensors: tuple[TensorSpec, ...], known: set[str], expected: str
) -> None:
    for within, name in _names(place, tensors):
        if name not in known:
            raise source.invalid(within, expected, show(name))


def _names(place: str, tensors: tuple[TensorSpec, ...]) -> Iterable[tuple[str, str]]:
    return ((inside(place, index, "name"), each.name) for index, each in enumerate(tensors))


def _check_equal(source: Source, place: str, found: int, expected: int) -> None:
    if found != expected:
        raise source.invalid(place, str(expected), str(found))

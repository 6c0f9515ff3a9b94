"""Cut a model into blocks and write them to the model repository.

Brings together capture, the exact partition and the assembly of blocks; each of those knows nothing
of the others' work. Knows nothing of devices at hand: which cuts even out the work is judged by the
roofline of every GPU class given.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from penstock.domain.blocks import Block, BlockPartition
from penstock.domain.cluster import DeviceRates
from penstock.domain.datasheet import DATASHEET
from penstock.domain.graph import Layer, ModelGraph
from penstock.domain.ids import ModelName
from penstock.formats.codec import digest
from penstock.formats.graphs import write_blocks, write_graph
from penstock.formats.layout import BLOCKS_FILE, GRAPH_FILE, block_file, model_directory
from penstock.prepartition.chain import partition_chain
from profiler.assemble import BlockProgram, build_block
from profiler.capture import Captured, Inputs, capture
from profiler.chain import Chain, build_chain
from profiler.files import write_atomically
from profiler.roofline import roofline_us
from profiler.store import MODEL_FILE, save_program
from profiler.verify import check_blocks

MAX_BLOCKS = 10
NS_PER_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReport:
    """What cutting did.

    Attributes:
        blocks_digest: SHA-256 of ``blocks.json``.
        relative_error: of the blocks against the whole model; None if not checked.
    """

    directory: Path
    partition: BlockPartition
    graph: ModelGraph
    blocks_digest: str
    relative_error: float | None


def cut_model(
    module: torch.nn.Module,
    inputs: Inputs,
    model: str,
    version: str,
    repository: Path,
    max_blocks: int = MAX_BLOCKS,
    output_names: Sequence[str] | None = None,
) -> BlockPartition:
    """Cut a module and write its blocks, its graph and the unsplit model.

    Args:
        module: in the state it is to serve; put into evaluation mode.
        inputs: example inputs by name, batch axis first.
        model: its name in the repository.
        version: a folder name, usually a number.
        repository: the root of all models; made if missing.
        max_blocks: as few as needed to keep them even, at most this many.
        output_names: for its outputs in order; else their keys or ``output0`` ….

    Raises:
        InvalidGraph: the module cannot be exported with a dynamic batch.
        InvariantViolation: the blocks do not answer what the module answers.
    """
    captured = capture(module, inputs, output_names, source=model)
    report = cut_captured(captured, model, version, repository, max_blocks=max_blocks)
    examples = [inputs[name] for name in captured.input_names]
    check_blocks(captured.reference, examples, report.directory, report.partition)
    return report.partition


def cut_captured(
    captured: Captured,
    model: str,
    version: str,
    repository: Path,
    *,
    max_blocks: int = MAX_BLOCKS,
    rates: Mapping[str, DeviceRates] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CutReport:
    """Cut a captured model and write its files, ``blocks.json`` last.

    Args:
        captured: consumed: its graph is rearranged.
        rates: GPU classes whose latencies the blocks have to even out; all of the data sheets
            if None.
        progress: called with (blocks written, blocks in all).
    """
    chain = build_chain(captured, model)
    graph = chain.graph(ModelName(model))
    classes = rates or {name: entry.rates for name, entry in DATASHEET.items()}
    latencies = [[layer_ns(layer, each) for layer in graph.layers] for each in classes.values()]
    found = partition_chain(latencies, graph.cut_bytes, max_blocks)
    return write_cut(
        chain, graph, found.boundaries, found.band.as_multiples, version, repository, progress
    )


def write_cut(
    chain: Chain,
    graph: ModelGraph,
    boundaries: Sequence[int],
    band: tuple[float, float],
    version: str,
    repository: Path,
    progress: Callable[[int, int], None] | None = None,
) -> CutReport:
    """Write the blocks between the given boundaries, the graph and the unsplit model."""
    directory = model_directory(repository, graph.model, version)
    ranges = list(itertools.pairwise(boundaries))
    blocks = []
    for index, (first, end) in enumerate(ranges):
        built = build_block(chain, first, end)
        sha256 = save_program(directory / block_file(index), built.program)
        blocks.append(_block(index, first, end, built, sha256))
        if progress:
            progress(index + 1, len(ranges))
    whole = build_block(chain, 0, len(chain.layers))
    save_program(directory / MODEL_FILE, whole.program)
    partition = BlockPartition(
        model=graph.model,
        version=version,
        inputs=whole.inputs,
        outputs=whole.outputs,
        blocks=tuple(blocks),
        cut_bytes=tuple(graph.cut_bytes[boundary - 1] for boundary in boundaries[1:-1]),
        band=band,
    )
    text = write_blocks(partition)
    write_atomically(directory / GRAPH_FILE, write_graph(graph).encode())
    write_atomically(directory / BLOCKS_FILE, text.encode())
    _remove_stale(directory, partition)
    return CutReport(
        directory=directory,
        partition=partition,
        graph=graph,
        blocks_digest=digest(text),
        relative_error=None,
    )


def layer_ns(layer: Layer, rates: DeviceRates) -> int:
    """Return the estimated latency of one layer at batch 1, in whole nanoseconds."""
    moved = layer.activation_bytes + layer.weight_bytes
    return round(NS_PER_US * roofline_us(layer.flops, moved, layer.launches, rates))


def _block(index: int, first: int, end: int, built: BlockProgram, sha256: str) -> Block:
    return Block(
        index=index,
        first_layer=first,
        end_layer=end,
        inputs=built.inputs,
        outputs=built.outputs,
        flops=built.work.flops,
        moved_bytes=built.work.activation_bytes,
        launches=built.work.launches,
        activation_bytes=built.live_bytes,
        weight_bytes=built.weight_bytes,
        file=block_file(index),
        sha256=sha256,
    )


def _remove_stale(directory: Path, partition: BlockPartition) -> None:
    """Drop blocks of an earlier cut into more parts."""
    kept = {block.file for block in partition.blocks}
    for path in directory.glob("block_*.pt2"):
        if path.name not in kept:
            path.unlink()

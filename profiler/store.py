"""Programs in the model repository: saved with their digests, read back as modules.

Knows paths and torch's archive format. Knows nothing of how a model was cut. The archives hold raw
weights and JSON; nothing in them is pickled, since programs are saved without example inputs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from penstock.domain.blocks import BlockPartition
from penstock.domain.errors import InvalidGraph
from penstock.formats.codec import digest
from profiler.capture import quiet_export
from profiler.files import write_atomically

MODEL_FILE = "model.pt2"


def save_program(path: Path, program: ExportedProgram) -> str:
    """Save a program and return the SHA-256 of its file."""
    buffer = io.BytesIO()
    with quiet_export():
        torch.export.save(program, buffer)
    data = buffer.getvalue()
    write_atomically(path, data)
    return digest(data)


def load_module(path: Path, device: str = "cpu") -> torch.nn.Module:
    """Load one saved program onto a device."""
    with quiet_export():
        program = torch.export.load(path)
        if device != "cpu":
            program = move_to_device_pass(program, device)
        module: torch.nn.Module = program.module()
    return module


def load_block(
    directory: Path, partition: BlockPartition, index: int, device: str = "cpu"
) -> torch.nn.Module:
    """Load one block, after checking that its file is the one the partition means.

    Raises:
        InvalidGraph: the file's digest is another one.
    """
    block = partition.blocks[index]
    path = directory / block.file
    found = digest(path.read_bytes())
    if found != block.sha256:
        raise InvalidGraph(str(path), "sha256", block.sha256, found)
    return load_module(path, device)


def run_stage(
    blocks: Sequence[torch.nn.Module], inputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Run consecutive blocks and return what the last one returns, densely packed for the wire."""
    tensors = tuple(inputs)
    with torch.inference_mode():
        for block in blocks:
            tensors = block(*tensors)
        return tuple(tensor.contiguous() for tensor in tensors)

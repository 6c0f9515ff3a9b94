"""Programs in the model repository: saved with their digests, read back as they are served.

Knows paths and torch's archive format. Knows nothing of how a model was cut. The archives hold raw
weights and JSON; nothing in them is pickled, since programs are saved without example inputs.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from execution.blocks import Chain, load_program
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


def load_block(
    directory: Path, partition: BlockPartition, index: int, device: str = "cpu"
) -> Chain:
    """Load one block as it is served, after checking that its file is the one the partition means.

    Raises:
        InvalidGraph: the file is missing, has another digest, or is no program.
    """
    block = partition.blocks[index]
    path = directory / block.file
    if not path.exists():
        raise InvalidGraph(str(path), "", "the program of a block", "none")
    content = path.read_bytes()
    found = digest(content)
    if found != block.sha256:
        raise InvalidGraph(str(path), "sha256", block.sha256, found)
    return Chain([block], [load_program(content, str(path), torch.device(device))])

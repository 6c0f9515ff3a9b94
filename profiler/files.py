"""Files of the model repository that need no torch: writing whole or not at all, descriptions."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.domain.blocks import BlockPartition
from penstock.domain.errors import InvalidGraph
from penstock.domain.profiles import LatencyProfile
from penstock.formats.codec import digest
from penstock.formats.graphs import read_blocks
from penstock.formats.layout import BLOCKS_FILE
from penstock.formats.profiles import read_profile


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in its place at once: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_profile(csv_path: Path, head_path: Path) -> LatencyProfile:
    """Read a profile that was written.

    Raises:
        InvalidProfile: it is wrong.
    """
    csv_text, head_text = (each.read_text(encoding="utf-8") for each in (csv_path, head_path))
    return read_profile(csv_text, head_text, str(csv_path))


def load_partition(directory: Path) -> tuple[BlockPartition, str]:
    """Read ``blocks.json`` and return it with its SHA-256.

    Raises:
        InvalidGraph: it is missing or wrong.
    """
    path = directory / BLOCKS_FILE
    if not path.exists():
        raise InvalidGraph(
            str(path), "", "the blocks of a model; `penstock cut` makes them", "none"
        )
    text = path.read_text(encoding="utf-8")
    return read_blocks(text, str(path)), digest(text)

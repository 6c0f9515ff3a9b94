"""What a process holds now: memory, open files, threads, shared memory of links (Linux).

Knows nothing of what the process does, nor of what it should hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.processes import resident_bytes
from penstock.domain.units import Bytes

_SEGMENT = "/memfd:penstock-link"
_BLOCK_BYTES = 512  # stat(2)
_THRESHOLD = ("MALLOC_MMAP_THRESHOLD_", "131072")  # mallopt(3): glibc's first one, kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one process holds.

    Attributes:
        segments: files of links' shared memory that are open; a mapped one counts as well.
        segment_bytes: that those of its own hold together, and those of others that it has open.
    """

    resident_bytes: Bytes
    open_files: int
    threads: int
    segments: int
    segment_bytes: Bytes

    def line(self) -> Mapping[str, int]:
        """Return it as plain values."""
        return asdict(self)


def footprint(process: int) -> Footprint:
    """Return what a process holds.

    Raises:
        OSError: there is no such process, or it is somebody else's.
    """
    here = Path(f"/proc/{process}")
    files = [each for each in (here / "fd").iterdir() if _target(each)]
    segments = [each for each in files if _target(each).startswith(_SEGMENT)]
    sizes = {about.st_ino: about.st_blocks * _BLOCK_BYTES for about in map(os.stat, segments)}
    return Footprint(
        resident_bytes=resident_bytes(process),
        open_files=len(files),
        threads=sum(1 for _ in (here / "task").iterdir()),
        segments=len(segments),
        segment_bytes=sum(sizes.values()),
    )


@contextmanager
def frugal_heaps() -> Iterator[None]:
    """Let processes started in the block give large blocks back to the system as they are freed.

    Else glibc keeps what was once needed for later, and their resident memory tells of their past.
    """
    name, value = _THRESHOLD
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _target(file: Path) -> str:
    """Return what a descriptor is of; nothing if it was closed meanwhile."""
    try:
        return str(file.readlink())
    except FileNotFoundError:
        return ""

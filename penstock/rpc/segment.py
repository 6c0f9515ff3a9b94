"""Memory that two processes of one host share: made by one, opened by the other.

An anonymous file: it has no name in any directory and is gone with the last process that holds it,
however that ends. It is sealed against shrinking, so no process can be killed by another that cuts
it off; and it is committed before it is written, so no memory means an error, not a signal.
Knows nothing of what lies in it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes

LARGEST_BYTES = 1 << 32

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_STEP_BYTES = 1 << 20


class Segment:
    """The end that writes.

    Args:
        capacity_bytes: address space; memory is committed as it is needed.

    Raises:
        OSError: there can be no such file.
    """

    def __init__(self, capacity_bytes: Bytes) -> None:
        self.capacity_bytes = capacity_bytes
        self.committed_bytes: Bytes = 0
        self.file = os.memfd_create("penstock-link", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.file, capacity_bytes)
            fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, _SEALS)
            self.view = memoryview(mmap.mmap(self.file, capacity_bytes))
        except OSError:
            os.close(self.file)
            raise

    def commit(self, end: int) -> None:
        """Make sure that bytes [0, end) can be written.

        Raises:
            OSError: there is no memory for them.
        """
        if end <= self.committed_bytes:
            return
        end = min(self.capacity_bytes, -(-end // _STEP_BYTES) * _STEP_BYTES)
        os.posix_fallocate(self.file, self.committed_bytes, end - self.committed_bytes)
        self.committed_bytes = end

    def close(self) -> None:
        """Let go of it."""
        if self.file < 0:
            return
        mapped = self.view.obj
        self.view.release()
        if isinstance(mapped, mmap.mmap):
            mapped.close()
        os.close(self.file)
        self.file = -1


def open_segment(file: int, capacity_bytes: Bytes) -> mmap.mmap:
    """Return somebody else's segment, to be read. Closes the file.

    Raises:
        InvalidInput: it is not what a sender makes.
        OSError: it cannot be mapped.
    """
    try:
        _check(file, capacity_bytes)
        return mmap.mmap(file, capacity_bytes, prot=mmap.PROT_READ)
    finally:
        os.close(file)


def _check(file: int, capacity_bytes: Bytes) -> None:
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode) or not 0 < about.st_size <= LARGEST_BYTES:
        raise _invalid("file", f"a regular file of 1 to {LARGEST_BYTES} bytes", "another")
    if about.st_size != capacity_bytes:
        raise _invalid("size", f"{capacity_bytes} bytes, as announced", f"{about.st_size} bytes")
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & _SEALS != _SEALS:
        raise _invalid("seals", "sealed against a change of its size", f"{seals:#x}")


def _invalid(place: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput("shared memory", place, expected, found)

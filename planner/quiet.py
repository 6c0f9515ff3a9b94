"""Keeps what native code prints away from stdout, which belongs to the caller's result."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT, _STDERR = 1, 2


@contextmanager
def native_output_on_stderr(*, muted: bool = False) -> Iterator[None]:
    """Send this process's file descriptor 1 to stderr for a while, C buffers included.

    HiGHS prints a line of its own now and then, whatever it is told about output. SCIP complains
    on stderr about the handler that lets it be interrupted, which then works: `muted` drops both.
    """
    flush_c = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    sys.stderr.flush()
    flush_c(None)
    saved = {descriptor: os.dup(descriptor) for descriptor in (_STDOUT, _STDERR)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere if muted else _STDERR, _STDOUT)
    if muted:
        os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    try:
        yield
    finally:
        flush_c(None)
        for descriptor, kept in saved.items():
            os.dup2(kept, descriptor)
            os.close(kept)

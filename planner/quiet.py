"""Keeps what native code prints away from stdout, which belongs to the caller's result."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT, _STDERR = 1, 2


@contextmanager
def native_output_on_stderr() -> Iterator[None]:
    """Send this process's file descriptor 1 to stderr for a while, C buffers included.

    HiGHS prints a line of its own now and then, whatever it is told about output.
    """
    flush_c = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush_c(None)
    saved = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        yield
    finally:
        flush_c(None)
        os.dup2(saved, _STDOUT)
        os.close(saved)

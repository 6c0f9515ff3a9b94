"""Ties a child process to its supervisor, however the supervisor ends.

Two ways, because neither is enough: the kernel's signal at the parent's death is Linux only, and
the end of standard input is not seen while the interpreter is stuck in foreign code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process when `parent` ends.

    Args:
        parent: process id of the one that started us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the kernel was told
            os._exit(0)


def follow(control: BinaryIO, on_line: Callable[[str], None]) -> None:
    """Hand on each line that the parent writes, and end this process when it writes no more.

    Args:
        control: the parent's pipe.
        on_line: called in a thread of its own.
    """
    threading.Thread(target=_follow, args=(control, on_line), name="lifeline", daemon=True).start()


def _follow(control: BinaryIO, on_line: Callable[[str], None]) -> None:
    for line in control:
        on_line(line.decode())
    os._exit(0)

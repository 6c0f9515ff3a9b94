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
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, control: BinaryIO) -> None:
    """End this process when `parent` ends or closes its end of `control`.

    Args:
        parent: process id of the one that started us.
        control: a pipe that the parent never writes to again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the kernel was told
            os._exit(0)
    threading.Thread(target=_exit_at_end, args=(control,), name="lifeline", daemon=True).start()


def _exit_at_end(control: BinaryIO) -> None:
    while control.read(1):
        pass
    os._exit(0)

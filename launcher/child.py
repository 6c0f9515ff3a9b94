"""Runs a `penstock` verb as a child that ends when its parent does, however that ends.

Used as ``python -m launcher.child VERB ...``. Knows nothing of the verbs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from penstock.__main__ import main

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends (Linux; elsewhere this does nothing).

    Args:
        parent: process id of the parent at start; if it is gone already, exit now.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    end_with_parent(int(os.environ["PENSTOCK_PARENT"]))
    main()

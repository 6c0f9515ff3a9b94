"""Environments of processes that are to hold a share: what must be set before CUDA starts there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LOGS = "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
DEVICES = "CUDA_VISIBLE_DEVICES"

_NOTHING: Mapping[str, str] = MappingProxyType({})


def process_environment(more: Mapping[str, str] = _NOTHING) -> dict[str, str]:
    """Return our environment with more in it, for a Python process.

    It finds our packages where we found them, not in the directory it is started in. A percentage
    that we were given is not for clients of an MPS daemon of our own.
    """
    ours = dict(os.environ)
    if PIPES in more:
        ours.pop(PERCENTAGE, None)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [ours.get("PYTHONPATH")])]
    return {**ours, "PYTHONPATH": os.pathsep.join(paths), **more}

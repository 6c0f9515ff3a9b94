"""Compiles a module with torch's inductor, and keeps what it made on disk for the next process.

Inductor keys its cache by code, shapes, versions and device itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TypeAlias

import torch

from penstock.domain.units import BYTES_PER_GIB, Bytes

Program: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# Folding weights into each other makes convolutions much faster, but each compiled batch size then
# has a copy of its own.
_FOLD_LIMIT_BYTES: Bytes = 2 * BYTES_PER_GIB
_SHAPES = 64  # batch sizes one module may be compiled for; torch's own limit is 8


def use_disk_cache(environment: MutableMapping[str, str] = os.environ) -> Path:
    """Let inductor keep its files below the user's cache directory; return where.

    What is set already holds; torch sets its own as soon as it is asked for it, so be early.
    """
    if _CACHE not in environment:
        home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        environment[_CACHE] = str(home / "penstock" / "inductor")
    return Path(environment[_CACHE])


def compiled(module: torch.nn.Module, weight_bytes: Bytes) -> Program:
    """Return a module that is compiled anew for each batch size, at its first call with it.

    Weights must not change afterwards. The first call raises what the compiler raises; a module
    that cannot be compiled as a whole is not compiled in part.
    """
    torch._dynamo.config.recompile_limit = _SHAPES
    fold = weight_bytes <= _FOLD_LIMIT_BYTES
    program: Program = torch.compile(
        module, dynamic=False, fullgraph=True, options={"freezing": fold}
    )
    return program


def reason_of(error: Exception) -> str:
    """Return what a compiler's error says, on one line and not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 200 else text[:199] + "…"  # noqa: PLR2004

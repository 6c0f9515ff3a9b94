"""Compiles a module with torch's inductor, and keeps what it made on disk for the next process.

Inductor keys its cache by code, shapes, versions and device itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TypeAlias

import torch

Program: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_SHAPES = 64  # batch sizes one module may be compiled for; torch's own limit is 8


def use_disk_cache(environment: MutableMapping[str, str] = os.environ) -> Path:
    """Let inductor keep its files below the user's cache directory; return where.

    What is set already holds; torch sets its own as soon as it is asked for it, so be early.
    """
    if _CACHE not in environment:
        home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        environment[_CACHE] = str(home / "penstock" / "inductor")
    return Path(environment[_CACHE])


def compiled(module: torch.nn.Module) -> Program:
    """Return a module that is compiled anew for each batch size, at its first call with it.

    The first call raises what the compiler raises; a module that cannot be compiled as a whole is
    not compiled in part.
    """
    torch._dynamo.config.recompile_limit = _SHAPES
    # Not frozen: what inductor freezes it does not keep on disk.
    program: Program = torch.compile(_by_itself(module), dynamic=False, fullgraph=True)
    return program


def _by_itself(module: torch.nn.Module) -> Program:
    """Return a function with code of its own, which runs a module.

    What torch compiled is kept, counted and looked up by code: modules of one class in one process
    would share one list, and the limit of its length.
    """

    def program(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: tuple[torch.Tensor, ...] = module(*inputs)
        return outputs

    program.__code__ = program.__code__.replace()
    return program


def reason_of(error: Exception) -> str:
    """Return what a compiler's error says, on one line and not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((each for each in lines if not each.endswith(":")), "")  # "… raised:" says nothing
    text = f"{type(error).__name__}: {said}"
    return text if len(text) <= 200 else text[:199] + "…"  # noqa: PLR2004

"""Options that several places know: what they refuse, and how they are spelled to another verb.

Callbacks for typer return the value they were given, or end the verb before it begins.
"""

from __future__ import annotations

import math
from pathlib import Path

import typer

from penstock.domain.execution import ExecutionOptions


def profile_arguments(execution: ExecutionOptions) -> tuple[str, ...]:
    """Return how `penstock profile` is told to measure what will be served so."""
    return (
        *("--precision", execution.precision),
        *("--memory-format", execution.memory_format),
        *("--compile", execution.compile),
    )


def finite(value: float | None) -> float | None:
    """Refuse infinity and what is not a number, which bounds may let pass.

    Raises:
        BadParameter: it is one of them.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def drawable(path: Path | None) -> Path | None:
    """Refuse a picture in an unknown format, before anything takes long.

    Raises:
        InvalidSettings: the suffix names no format.
    """
    if path is not None:
        from penstock.pictures.canvas import check_suffix

        check_suffix(path)
    return path

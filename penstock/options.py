"""What options of several verbs refuse: numbers that are none, pictures that cannot be drawn.

Callbacks for typer: each returns the value it was given, or ends the verb before it begins.
"""

from __future__ import annotations

import math
from pathlib import Path

import typer


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

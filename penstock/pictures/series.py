"""How the lines and bars of one series look, the same in every picture, and their legend.

Knows nothing of what a series is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from penstock.pictures.canvas import PALETTE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# A line style of matplotlib.
Dashes: TypeAlias = str | tuple[int, tuple[float, ...]]

_MARKERS = "osD^vPX"
_DASHES: tuple[Dashes, ...] = ("-", (0, (4.0, 1.5)), (0, (1.0, 1.2)))
_HATCHES = ("", "////", "....")

_CHARACTER_IN = 0.083
_HANDLE_IN = 0.62
LEGEND_ROW_IN = 0.228

Entries: TypeAlias = Sequence[tuple["Artist", str]]


@dataclass(frozen=True, slots=True)
class Look:
    """Colour first; shape, stroke and hatch tell apart what eyes or printers may not."""

    colour: str
    marker: str
    dashes: Dashes
    hatch: str


def look_of(number: int) -> Look:
    """Return how the series of this number looks; colours come again with another stroke."""
    place, again = number % len(PALETTE), number // len(PALETTE)
    return Look(
        PALETTE[place],
        _MARKERS[place],
        _DASHES[again % len(_DASHES)],
        _HATCHES[again % len(_HATCHES)],
    )


def legend_rows(names: Sequence[str], width_in: float) -> int:
    """Return how many rows a legend of these names takes."""
    return math.ceil(len(names) / _columns(names, width_in)) if names else 0


def draw_legend(
    figure: Figure, entries: Entries, left_in: float, top_in: float, width_in: float
) -> None:
    """Draw a legend above all axes, where it hides nothing.

    Args:
        figure: with room for `legend_rows`.
        entries: what stands for each name.
        left_in, top_in: its corner, from the left and from the top of the figure.
        width_in: room for it.
    """
    width, height = figure.get_size_inches()
    figure.legend(
        [handle for handle, _ in entries],
        [name for _, name in entries],
        loc="upper left",
        bbox_to_anchor=(left_in / width, 1 - top_in / height),
        ncols=_columns([name for _, name in entries], width_in),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.6,
        handlelength=2.0,
        prop={"family": "DejaVu Sans", "size": 10},
    )


def _columns(names: Sequence[str], width_in: float) -> int:
    """Return in how many columns these names fit; a column is as wide as its longest name."""
    for columns in range(len(names), 1, -1):
        filled = _filled(names, columns)
        if sum(_HANDLE_IN + _CHARACTER_IN * max(map(len, each)) for each in filled) <= width_in:
            return columns
    return 1


def _filled(names: Sequence[str], columns: int) -> list[Sequence[str]]:
    """Return names column by column as a legend fills them: the first ones are longer by one."""
    least, longer = divmod(len(names), columns)
    ends = [least * number + min(number, longer) for number in range(columns + 1)]
    return [names[first:last] for first, last in pairwise(ends)]

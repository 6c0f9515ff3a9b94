"""Figures of several things side by side: one bar each, one panel per figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.pictures.canvas import FAINT, INK, PALETTE, add_axes, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES_IN, _PANEL_IN, _BETWEEN_IN, _ROW_IN = 1.2, 3.0, 0.25, 0.38
_ABOVE_IN, _BELOW_IN = 1.15, 0.3
_MISSING = "–"
_ROOM = 1.28  # right of the longest bar, for its number


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of everything.

    Attributes:
        title: the figure and its unit.
        values: by name; None where there is none.
    """

    title: str
    values: Mapping[str, float | None]


def draw_bars(panels: Sequence[Panel], path: Path, *, title: str, subtitle: str = "") -> None:
    """Draw panels side by side, from left to right, with the names at the left.

    Args:
        panels: one at least, all with the same names in the same order; the first name stands out.
        path: .png, .svg or .html.
        title: what is shown.
        subtitle: what a reader should take from it.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    rows = len(panels[0].values)
    width = _NAMES_IN + len(panels) * (_PANEL_IN + _BETWEEN_IN)
    figure = new_figure(width, _ABOVE_IN + _BELOW_IN + rows * _ROW_IN, title, subtitle)
    for place, panel in enumerate(panels):
        left = _NAMES_IN + place * (_PANEL_IN + _BETWEEN_IN)
        axes = add_axes(figure, left, _BELOW_IN, width - left - _PANEL_IN, _ABOVE_IN)
        _draw_panel(axes, panel, named=place == 0)
    save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, *, named: bool) -> None:
    values = [value or 0.0 for value in panel.values.values()]
    colours = [PALETTE[0], *[FAINT] * len(values)][: len(values)]
    axes.barh(range(len(values)), values, color=colours, height=0.62)
    for row, value in enumerate(panel.values.values()):
        said = _MISSING if value is None else f"{value:,.4g}"
        axes.text(value or 0.0, row, f" {said}", va="center", color=INK)
    axes.set_yticks(range(len(values)), list(panel.values) if named else [""] * len(values))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, _ROOM * max([*values, 0.0]) or 1.0)
    axes.set_title(panel.title, loc="left", size=10, color=INK)
    axes.spines["bottom"].set_visible(False)

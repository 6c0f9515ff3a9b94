"""Figures of several things side by side: one bar each, one panel per figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.pictures.canvas import FAINT, INK, PALETTE, add_axes, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES_IN, _PANEL_IN, _BETWEEN_IN, _ROW_IN = 1.2, 3.0, 0.25, 0.38
_LEAST_WIDTH_IN = 7.5  # room for title and subtitle: a lone panel is wider
_ABOVE_IN, _BELOW_IN = 1.15, 0.3
_MISSING = "–"
_WHOLE_FROM = 1000.0  # larger numbers are told without decimals
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


def draw_bars(
    panels: Sequence[Panel],
    path: Path,
    *,
    title: str,
    subtitle: str = "",
    standing_out: Collection[str] = (),
) -> None:
    """Draw panels side by side, from left to right, with the names at the left.

    Args:
        panels: one at least, all with the same names in the same order.
        path: .png, .svg or .html.
        title: what is shown.
        subtitle: what a reader should take from it.
        standing_out: names whose bars have the colour, the others being grey; none: all have it.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    rows = len(panels[0].values)
    wide = max(_PANEL_IN, (_LEAST_WIDTH_IN - _NAMES_IN) / len(panels) - _BETWEEN_IN)
    width = _NAMES_IN + len(panels) * (wide + _BETWEEN_IN)
    figure = new_figure(width, _ABOVE_IN + _BELOW_IN + rows * _ROW_IN, title, subtitle)
    for place, panel in enumerate(panels):
        left = _NAMES_IN + place * (wide + _BETWEEN_IN)
        axes = add_axes(figure, left, _BELOW_IN, width - left - wide, _ABOVE_IN)
        _draw_panel(axes, panel, standing_out or panel.values, named=place == 0)
    save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, standing_out: Collection[str], *, named: bool) -> None:
    values = [value or 0.0 for value in panel.values.values()]
    colours = [PALETTE[0] if name in standing_out else FAINT for name in panel.values]
    axes.barh(range(len(values)), values, color=colours, height=0.62)
    for row, value in enumerate(panel.values.values()):
        axes.text(value or 0.0, row, f" {_said(value)}", va="center", color=INK)
    axes.set_yticks(range(len(values)), list(panel.values) if named else [""] * len(values))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, _ROOM * max([*values, 0.0]) or 1.0)
    axes.set_title(panel.title, loc="left", size=10, color=INK)
    axes.spines["bottom"].set_visible(False)


def _said(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.4g}"

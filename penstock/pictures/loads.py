"""Attainment against load under several seeds: what policies hold, and where they give in.

Attainment is drawn on a scale that grows towards 100 %: between 99 and 99.9 % lies as much as
between 90 and 99 %, for that is where SLOs are met or missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from penstock.pictures.canvas import ALARM, FAINT, GRID, INK, add_axes, new_figure, save
from penstock.pictures.series import LEGEND_ROW_IN, draw_legend, legend_rows, look_of
from penstock.pictures.values import BandPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray["float64"]
    from numpy import float64

_LEFT, _RIGHT, _HEAD, _FOOT = 0.95, 0.35, 0.78, 0.62
_GAP_X, _GAP_Y = 0.35, 0.6
_PANEL_NAME, _NO_NAME = 0.4, 0.15
_MOST_COLUMNS = 3
# By number of columns: a panel's width and height.
_PANELS = {1: (8.0, 4.2), 2: (4.9, 3.2), 3: (3.9, 2.8)}

_THIN, _THICK = 1.6, 3.0
_MANY = 4  # series, above which bands would hide one another
_FOR_LEGEND = 2.5
_BAND, _BAND_OF_MANY = 0.16, 0.06

_FLOOR = 0.001  # misses that count as next to none: the scale ends there, not at infinity
_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
_TOP = 1.00015

Curves: TypeAlias = Mapping[str, Sequence[BandPoint]]


def draw_loads(
    panels: Mapping[str, Curves],
    path: Path,
    *,
    target: float = 0.99,
    title: str = "Attainment against load",
    subtitle: str = "",
    load_label: str = "load (offered rate by planned throughput)",
) -> None:
    """Draw one panel for each group of requests, in each one line per series.

    A band shows the least and the most over the seeds.

    Args:
        panels: by the name of what was asked for, series by name, points in any order; every panel
            has the same series.
        path: .png, .svg or .html.
        target: attainment that is wanted, 0 to 1.
        title: what was measured.
        subtitle: what a reader should know besides.
        load_label: what a load of 1 is.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    layout = _laid_out(len(panels), [*names, _target_label(target)])
    figure = new_figure(layout.width, layout.height, title, subtitle)
    bottom = _bottom(panels, target)
    drawn = []
    for number, (name, curves) in enumerate(panels.items()):
        axes = add_axes(figure, *layout.margins(number))
        _draw_panel(axes, curves, names, target)
        _scale(axes, bottom, dense=layout.columns == 1)
        axes.tick_params(labelleft=number % layout.columns == 0)
        if len(panels) > 1:
            axes.set_title(name, loc="left", size=10.5, color=INK, weight="bold")
        if number % layout.columns == 0:
            axes.set_ylabel("answered within the SLO")
        if number + layout.columns >= len(panels):
            axes.set_xlabel(load_label if layout.columns == 1 else load_label.partition(" (")[0])
        drawn.append(axes)
    for axes in drawn[:1]:  # all have the same lines
        lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        entries = [(line, str(line.get_label())) for line in lines]
        draw_legend(figure, entries, _LEFT, _HEAD, layout.width - _LEFT - _RIGHT)
    save(figure, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where panels are, in inches.

    Attributes:
        panel: width and height of each.
        top: above the first row.
    """

    columns: int
    panel: tuple[float, float]
    width: float
    height: float
    top: float

    def margins(self, number: int) -> tuple[float, float, float, float]:
        """Return what is left, below, right and above of a panel."""
        row, column = divmod(number, self.columns)
        wide, high = self.panel
        left = _LEFT + column * (wide + _GAP_X)
        above = self.top + row * (high + _GAP_Y)
        return left, self.height - above - high, self.width - left - wide, above


def _laid_out(panels: int, names: Sequence[str]) -> _Layout:
    columns = max(1, min(_MOST_COLUMNS, panels))
    rows = max(1, math.ceil(panels / columns))
    wide, high = _PANELS[columns]
    if columns == 1 and len(names) > _MANY + 1:
        wide += _FOR_LEGEND
    width = _LEFT + columns * wide + (columns - 1) * _GAP_X + _RIGHT
    top = _HEAD + legend_rows(names, width - _LEFT - _RIGHT) * LEGEND_ROW_IN
    top += _PANEL_NAME if panels > 1 else _NO_NAME
    height = top + rows * high + (rows - 1) * _GAP_Y + _FOOT
    return _Layout(columns=columns, panel=(wide, high), width=width, height=height, top=top)


def _target_label(target: float) -> str:
    return f"target {100 * target:g}%"


def _draw_panel(axes: Axes, curves: Curves, names: Sequence[str], target: float) -> None:
    for number, name in enumerate(names):
        look = look_of(number)
        points = sorted(curves.get(name, ()), key=lambda point: point.x)
        loads = [point.x for point in points]
        if any(point.high > point.low for point in points):
            axes.fill_between(
                loads,
                [point.low for point in points],
                [point.high for point in points],
                color=look.colour,
                alpha=_BAND if len(names) <= _MANY else _BAND_OF_MANY,
                linewidth=0,
            )
        axes.plot(
            loads,
            [point.mean for point in points],
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            # Where lines lie upon one another, the lower ones show as rims.
            linewidth=_THIN + (_THICK - _THIN) * (1 - number / len(names)),
            label=name,
            clip_on=False,
            zorder=3,
        )
    axes.axhline(
        target,
        color=ALARM,
        linewidth=1.3,
        linestyle=(0, (5, 3)),
        label=_target_label(target),
    )
    loads = [point.x for points in curves.values() for point in points]
    if loads and min(loads) <= 1.0 <= max(loads):
        axes.axvline(1.0, color=FAINT, linewidth=1.1, linestyle=":", label="_")
    axes.margins(x=0.03)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _scale(axes: Axes, bottom: float, *, dense: bool) -> None:
    axes.set_yscale("function", functions=(_forward, _inverse))
    axes.set_ylim(bottom, _TOP)
    ticks = [each for each in _TICKS if each >= bottom and (dense or each not in (0.98, 0.995))]
    axes.set_yticks(ticks, [f"{100 * each:g}%" for each in ticks])
    axes.minorticks_off()


def _bottom(panels: Mapping[str, Curves], target: float) -> float:
    """Return the tick that all points, and something of the bad, lie above."""
    points = [point.low for curves in panels.values() for each in curves.values() for point in each]
    lowest = min([*points, target, 0.95])
    return max(each for each in _TICKS if each <= lowest)


def _forward(attainment: Numbers) -> Numbers:
    import numpy as np

    return -np.log10(np.maximum(1 + _FLOOR - attainment, _FLOOR / 100))


def _inverse(height: Numbers) -> Numbers:
    import numpy as np

    return 1 + _FLOOR - np.power(10.0, -height)

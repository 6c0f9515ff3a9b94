"""How busy each GPU class is at each load: bars, with the part of the fleet that is used behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from penstock.pictures.canvas import FAINT, GRID, INK, add_axes, new_figure, save, tint
from penstock.pictures.series import LEGEND_ROW_IN, draw_legend, legend_rows, look_of
from penstock.pictures.values import UsePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT, _HEAD, _FOOT = 0.85, 0.35, 0.78, 0.62
_PANEL, _GAP = 1.75, 0.5
_LEAST_WIDTH, _MOST_WIDTH = 8.5, 14.0
_BAR_IN = 0.34  # wished for
_GROUP = 0.78  # of a group's pitch is bars
_LABELLED_IN = 0.36  # narrower bars have no room for a number
_TOPS = (0.08, 0.2, 0.4, 0.6, 0.8, 1.0)
_IDLE, _IN_VAIN = 0.18, 0.5  # strength of the colour
_MOST_BARS = 72  # in a panel; more cannot be told apart

Bars: TypeAlias = Mapping[str, Sequence[UsePoint]]


def draw_utilisation(
    panels: Mapping[str, Bars],
    path: Path,
    *,
    title: str = "Utilisation",
    load_label: str = "load (offered rate by planned throughput)",
) -> None:
    """Draw one panel per GPU class: a group of bars per load, a bar per series.

    Args:
        panels: by GPU class, series by name, points in any order.
        path: .png, .svg or .html.
        title: what was measured.
        load_label: what a load of 1 is.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    names = list(dict.fromkeys(name for bars in panels.values() for name in bars))
    loads = _loads(panels, max(1, len(names)))
    per_panel = len(loads) * len(names)
    width = min(_MOST_WIDTH, max(_LEAST_WIDTH, _LEFT + _RIGHT + per_panel * _BAR_IN / _GROUP))
    legend_in = legend_rows(names, width - _LEFT - _RIGHT) * LEGEND_ROW_IN
    top = _HEAD + legend_in + 0.42
    height = top + max(1, len(panels)) * (_PANEL + _GAP) - _GAP + _FOOT
    subtitle = (
        "Solid: busy with what was answered in time; paler: in vain; palest: in use, but idle"
    )
    scale = _scale(panels)
    figure = new_figure(width, height, title, subtitle)
    for number, (gpu_class, bars) in enumerate(panels.items()):
        above = top + number * (_PANEL + _GAP)
        axes = add_axes(figure, _LEFT, height - above - _PANEL, _RIGHT, above)
        pitch_in = (width - _LEFT - _RIGHT) / max(1, len(loads))
        _draw_panel(axes, bars, names, loads, pitch_in, scale)
        axes.set_title(gpu_class, loc="left", size=10.5, weight="bold", color=INK)
        if number == len(panels) - 1:
            axes.set_xlabel(load_label)
    _draw_legend(figure, names, width - _LEFT - _RIGHT)
    save(figure, path)


def _draw_legend(figure: Figure, names: Sequence[str], width_in: float) -> None:
    from matplotlib.patches import Patch

    looks = [look_of(number) for number in range(len(names))]
    patches = [Patch(facecolor=each.colour, hatch=each.hatch, edgecolor="white") for each in looks]
    if names:
        draw_legend(figure, list(zip(patches, names, strict=True)), _LEFT, _HEAD, width_in)


def _scale(panels: Mapping[str, Bars]) -> float:
    """Return the top of all panels: a plan may use a small part of a large fleet."""
    used = [each.used for bars in panels.values() for points in bars.values() for each in points]
    return next((top for top in _TOPS if top >= max(used, default=1.0)), 1.0)


def _loads(panels: Mapping[str, Bars], series: int) -> list[float]:
    """Return the loads to show: all, or every second, third … of too many, the greatest kept."""
    loads = sorted(
        {point.load for bars in panels.values() for points in bars.values() for point in points}
    )
    step = max(1, -(-len(loads) * series // _MOST_BARS))
    return loads[::-1][::step][::-1]


def _draw_panel(
    axes: Axes,
    bars: Bars,
    names: Sequence[str],
    loads: Sequence[float],
    pitch_in: float,
    top: float,
) -> None:
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    places = {load: place for place, load in enumerate(loads)}
    wide = _GROUP / max(1, len(names))
    for number, name in enumerate(names):
        points = [each for each in bars.get(name, ()) if each.load in places]
        shift = (number - (len(names) - 1) / 2) * wide
        middles = [places[each.load] + shift for each in points]
        _draw_bars(axes, points, middles, wide * 0.92, number)
        if wide * pitch_in >= _LABELLED_IN:
            _label(axes, points, middles)
    axes.set_xlim(-0.5, max(1, len(loads)) - 0.5)
    axes.set_xticks(range(len(loads)), [f"{load:g}" for load in loads])
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MultipleLocator(top / 4))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("of all GPUs")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_bars(
    axes: Axes, points: Sequence[UsePoint], middles: Sequence[float], wide: float, number: int
) -> None:
    look = look_of(number)
    for strength, heights in (
        (_IDLE, [each.used for each in points]),
        (_IN_VAIN, [each.mean for each in points]),
    ):
        axes.bar(middles, heights, width=wide, color=[tint(look.colour, strength)])
    axes.bar(
        middles,
        [each.useful for each in points],
        width=wide,
        color=look.colour,
        hatch=look.hatch,
        edgecolor="white",
        linewidth=0,
    )
    if any(each.high > each.low for each in points):
        axes.vlines(
            middles,
            [each.low for each in points],
            [each.high for each in points],
            color=INK,
            linewidth=1.2,
        )


def _label(axes: Axes, points: Sequence[UsePoint], middles: Sequence[float]) -> None:
    for each, middle in zip(points, middles, strict=True):
        axes.annotate(
            f"{each.mean:.0%}",
            (middle, max(each.mean, each.high)),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=8,
            color=INK if each.mean > 0 else FAINT,
            annotation_clip=False,
        )

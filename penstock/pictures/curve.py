"""Throughput against SLO: what a fleet serves when its models have more or less time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.pictures.canvas import FAINT, GRID, PALETTE, add_axes, new_figure, save
from penstock.pictures.values import ScalePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 8.5, 5.2
_MARKERS = "osD^vPX"
_CROSS_ROW = 0.035  # of the height
_MISSING = "no plan found"


def draw_slo_curve(
    series: Mapping[str, Sequence[ScalePoint]],
    path: Path,
    *,
    unit: str = "samples/s per unit of weight",
    title: str = "Throughput against SLO",
) -> None:
    """Draw one curve per series over the scale of all SLOs; a cross where there is no plan.

    Args:
        series: points by the name of how was planned; in any order.
        path: .png, .svg or .html.
        unit: of the values.
        title: what is shown.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    figure = new_figure(
        _WIDTH,
        _HEIGHT,
        title,
        "Best plan for the fleet when every SLO is multiplied; shaded: as far as the proven bound",
    )
    axes = add_axes(figure, 0.85, 0.7, 0.4, 1.2)
    for number, (name, points) in enumerate(series.items()):
        _draw_series(axes, name, sorted(points, key=lambda each: each.scale), number)
        _draw_missing(axes, points, number)
    if any(each.value is None for points in series.values() for each in points):
        axes.plot([], [], color=FAINT, marker="x", markersize=7, linestyle="none", label=_MISSING)
    axes.axvline(1.0, color=FAINT, linewidth=1.3, linestyle=":", label="SLOs as they are")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("every SLO, as a multiple of what the cluster file says")
    axes.set_ylabel(unit)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.04)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False, columnspacing=1.4
    )
    save(figure, path)


def _draw_series(axes: Axes, name: str, points: Sequence[ScalePoint], number: int) -> None:
    colour = PALETTE[number % len(PALETTE)]
    there = [(each.scale, each.value) for each in points if each.value is not None]
    axes.plot(
        [scale for scale, _ in there],
        [value for _, value in there],
        color=colour,
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=6,
        linewidth=2,
        label=name,
    )
    open_ = [(each.scale, each.value, each.bound) for each in points]
    known = [
        (scale, *sorted((value, bound)))
        for scale, value, bound in open_
        if value is not None and bound is not None
    ]
    axes.fill_between(
        [scale for scale, _, _ in known],
        [low for _, low, _ in known],
        [high for _, _, high in known],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )


def _draw_missing(axes: Axes, points: Sequence[ScalePoint], number: int) -> None:
    """Draw a cross for each point without a plan, a row above the axis for each series."""
    scales = [each.scale for each in points if each.value is None]
    axes.plot(
        scales,
        [_CROSS_ROW * (number + 1)] * len(scales),
        color=PALETTE[number % len(PALETTE)],
        marker="x",
        markersize=7,
        markeredgewidth=2,
        linestyle="none",
        transform=axes.get_xaxis_transform(),
        label="_",
    )

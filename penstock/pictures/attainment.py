"""Attainment against load: how far a plan can be pushed before it misses its SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.pictures.canvas import ALARM, FAINT, GRID, PALETTE, add_axes, new_figure, save
from penstock.pictures.values import LoadPoint

_WIDTH, _HEIGHT = 8.5, 5.2
_MARKERS = "osD^vPX"


def draw_attainment(
    series: Mapping[str, Sequence[LoadPoint]],
    path: Path,
    *,
    target: float = 0.99,
    planned_rps: float | None = None,
    title: str = "Attainment over load",
) -> None:
    """Draw one curve per series, with the target and the planned load as lines.

    Args:
        series: points by the name of what was loaded; in any order.
        path: .png, .svg or .html.
        target: attainment that is wanted, 0 to 1.
        planned_rps: load the plan is made for; None: no line.
        title: what was measured.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(
        _WIDTH, _HEIGHT, title, "Share of offered requests that were answered within their SLO"
    )
    axes = add_axes(figure, 0.85, 0.7, 0.4, 1.2)
    for number, (name, points) in enumerate(series.items()):
        ordered = sorted(points, key=lambda point: point.offered_rps)
        axes.plot(
            [point.offered_rps for point in ordered],
            [point.attainment for point in ordered],
            color=PALETTE[number % len(PALETTE)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=2,
            label=name,
        )
    wanted = f"target {100 * target:g}%"
    axes.axhline(target, color=ALARM, linewidth=1.3, linestyle=(0, (5, 3)), label=wanted)
    if planned_rps is not None:
        label = f"planned {planned_rps:,.0f}/s"
        axes.axvline(planned_rps, color=FAINT, linewidth=1.3, linestyle=":", label=label)
    lowest = min((point.attainment for points in series.values() for point in points), default=0.0)
    axes.set_ylim(max(0.0, min(lowest, target) - 0.05), 1.01)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("offered load (requests per second)")
    axes.set_ylabel("attainment")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False, columnspacing=1.4
    )
    save(figure, path)

"""Cost against throughput: the least a fleet has to spend for what it serves, and on which GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.pictures.canvas import FAINT, GRID, INK, PALETTE, add_axes, new_figure, save
from penstock.pictures.values import LevelPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 8.5, 6.2
_LOWER = 1.9  # height of the lower drawing


def draw_frontier(
    points: Sequence[LevelPoint],
    path: Path,
    *,
    unit: str = "cost per hour",
    title: str = "Cost against throughput",
) -> None:
    """Draw the least cost of each level of throughput, and below it the GPUs that it takes.

    Args:
        points: levels that have a plan; in any order.
        path: .png, .svg or .html.
        unit: of what is spent.
        title: what is shown.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    ordered = sorted(points, key=lambda each: each.level_rps)
    figure = new_figure(
        _WIDTH,
        _HEIGHT,
        title,
        "Least that each level of throughput takes; shaded: as far as the proven bound",
    )
    right = max([each.level_rps for each in ordered], default=1.0) * 1.06
    above = add_axes(figure, 0.85, _LOWER + 1.35, 0.4, 0.9)
    _draw_costs(above, ordered, unit)
    below = add_axes(figure, 0.85, 0.7, 0.4, _HEIGHT - _LOWER - 0.7)
    _draw_gpus(below, ordered, right)
    for axes in (above, below):
        axes.set_xlim(0, right)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    save(figure, path)


def _draw_costs(axes: Axes, points: Sequence[LevelPoint], unit: str) -> None:
    levels = [each.level_rps for each in points]
    axes.fill_between(
        levels,
        [each.bound for each in points],
        [each.spent for each in points],
        color=PALETTE[0],
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(
        levels,
        [each.spent for each in points],
        color=PALETTE[0],
        marker="o",
        markersize=6,
        linewidth=2,
    )
    axes.set_ylabel(unit)


def _draw_gpus(axes: Axes, points: Sequence[LevelPoint], right: float) -> None:
    from matplotlib.ticker import MaxNLocator

    classes = list(dict.fromkeys(name for each in points for name in each.gpus))
    width = right / max(1, len(points)) * 0.55
    bottoms = [0] * len(points)
    for number, name in enumerate(classes):
        counts = [each.gpus.get(name, 0) for each in points]
        axes.bar(
            [each.level_rps for each in points],
            counts,
            width=width,
            bottom=bottoms,
            color=PALETTE[(number + 1) % len(PALETTE)],
            edgecolor="white",
            linewidth=0.8,
            label=name,
        )
        bottoms = [low + count for low, count in zip(bottoms, counts, strict=True)]
    for each, total in zip(points, bottoms, strict=True):
        axes.text(each.level_rps, total, f" {total}", size=8, color=FAINT, ha="center", va="bottom")
    axes.margins(y=0.18)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("throughput (samples per second and unit of weight)")
    axes.set_ylabel("GPUs in use", color=INK)
    if classes:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.97),
            ncols=6,
            frameon=False,
            columnspacing=1.4,
        )

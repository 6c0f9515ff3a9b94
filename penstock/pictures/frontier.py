"""Cost against throughput: the least a fleet has to spend for what it serves, and on which GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.pictures.canvas import FAINT, GRID, INK, PALETTE, add_axes, new_figure, save
from penstock.pictures.values import LevelPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 8.5, 6.2
_LOWER = 1.9  # height of the lower drawing
_CROSS_ROW = 0.045  # of the height


def draw_frontier(
    points: Sequence[LevelPoint],
    path: Path,
    *,
    unit: str = "cost per hour",
    title: str = "Cost against throughput",
) -> None:
    """Draw the least cost of each level of throughput, and below it the GPUs that it takes.

    A level without a plan breaks the line; a mark on the axis tells whether there is none, or none
    was found in time.

    Args:
        points: levels; in any order.
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
    planned = [each for each in ordered if each.spent is not None]
    above = add_axes(figure, 0.85, _LOWER + 1.35, 0.4, 0.9)
    _draw_costs(above, ordered, unit)
    _draw_missing(above, ordered)
    below = add_axes(figure, 0.85, 0.7, 0.4, _HEIGHT - _LOWER - 0.7)
    _draw_gpus(below, planned, right / max(1, len(ordered)))
    for axes in (above, below):
        axes.set_xlim(0, right)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    save(figure, path)


def _draw_costs(axes: Axes, points: Sequence[LevelPoint], unit: str) -> None:
    levels = [each.level_rps for each in points]
    spent = [math.nan if each.spent is None else each.spent for each in points]
    axes.fill_between(
        levels,
        [each.bound for each in points],
        spent,
        color=PALETTE[0],
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(levels, spent, color=PALETTE[0], marker="o", markersize=6, linewidth=2)
    axes.set_ylabel(unit)


def _draw_missing(axes: Axes, points: Sequence[LevelPoint]) -> None:
    """Mark the levels without a plan on the axis, and say what the marks mean."""
    missing = [each for each in points if each.spent is None]
    for infeasible, marker, label in (
        (False, "x", "no plan found in time"),
        (True, "s", "infeasible: there is no plan"),
    ):
        levels = [each.level_rps for each in missing if each.infeasible == infeasible]
        if levels:
            axes.plot(
                levels,
                [_CROSS_ROW] * len(levels),
                color=FAINT,
                marker=marker,
                markersize=7,
                markeredgewidth=2,
                linestyle="none",
                transform=axes.get_xaxis_transform(),
                label=label,
            )
    if missing:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.97),
            ncols=2,
            frameon=False,
            columnspacing=1.4,
        )


def _draw_gpus(axes: Axes, points: Sequence[LevelPoint], pitch: float) -> None:
    from matplotlib.ticker import MaxNLocator

    classes = list(dict.fromkeys(name for each in points for name in each.gpus))
    bottoms = [0] * len(points)
    for number, name in enumerate(classes):
        counts = [each.gpus.get(name, 0) for each in points]
        axes.bar(
            [each.level_rps for each in points],
            counts,
            width=pitch * 0.55,
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

"""The lower half of the pool map: every GPU of the fleet with the instances on it, and the legend.

Lengths are inches of the picture, y pointing down.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import Plan, PlannedClass
from penstock.pictures.canvas import EMPTY, FAINT, INK, Colour, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.28

_CLASS_NAME = 2.15
_TILE, _TILE_GAP = 0.4, 0.08
_CLASS_GAP = 0.12
_LEGEND_ROW, _LEGEND_COLUMN = 0.3, 2.4


# A stage's colour, by model and position.
StageColours: TypeAlias = Mapping[tuple[ModelName, int], Colour]


def fleet_height(plan: Plan, width: float) -> float:
    """Return how much height the fleet takes on a picture of this width."""
    rows = sum(_rows(each, width) for each in plan.gpu_classes)
    return 0.55 + rows * (_TILE + _TILE_GAP) + _CLASS_GAP * len(plan.gpu_classes)


def draw_fleet(axes: Axes, plan: Plan, top: float, width: float, colours: StageColours) -> None:
    """Draw a row of squares for each GPU class, one square per GPU.

    Args:
        axes: in inches, y pointing down.
        plan: what the GPUs hold.
        top: where the drawing begins.
        width: of the picture.
        colours: of each stage in the plan.
    """
    axes.plot([MARGIN, width - MARGIN], [top, top], color=EMPTY, linewidth=1.5)
    axes.text(MARGIN, top + 0.2, "Fleet", size=12, weight="bold", va="center", color=INK)
    hint = "one square per GPU; instances that share it split the square"
    axes.text(MARGIN + 0.75, top + 0.205, hint, size=9.5, color=FAINT, va="center")
    top += 0.45
    bands = _bands(plan, colours)
    for gpu_class in plan.gpu_classes:
        used = bands[gpu_class.name]
        _name_class(axes, gpu_class, len(used), top)
        for number in range(gpu_class.count):
            row, column = divmod(number, _tiles_per_row(width))
            left = MARGIN + _CLASS_NAME + column * (_TILE + _TILE_GAP)
            corner = (left, top + row * (_TILE + _TILE_GAP))
            _draw_tile(axes, corner, used[number] if number < len(used) else [])
        top += _rows(gpu_class, width) * (_TILE + _TILE_GAP) + _CLASS_GAP


def legend_height(stages: int, width: float) -> float:
    """Return how much height the legend of so many stages takes."""
    return math.ceil((stages + 1) / _legend_columns(width)) * _LEGEND_ROW


def draw_legend(axes: Axes, top: float, width: float, colours: StageColours) -> None:
    """Draw which colour stands for which stage, and which for a free GPU."""
    names = {f"{model}, stage {position + 1}": each for (model, position), each in colours.items()}
    entries = {**names, "free": tint(EMPTY, 1.0)}
    for number, (name, colour) in enumerate(entries.items()):
        row, column = divmod(number, _legend_columns(width))
        left, middle = MARGIN + column * _LEGEND_COLUMN, top + row * _LEGEND_ROW + 0.12
        _draw_swatch(axes, left, middle, colour)
        axes.text(left + 0.26, middle, name, size=9, va="center", color=INK)


def _tiles_per_row(width: float) -> int:
    return int((width - 2 * MARGIN - _CLASS_NAME) / (_TILE + _TILE_GAP))


def _rows(gpu_class: PlannedClass, width: float) -> int:
    return math.ceil(gpu_class.count / _tiles_per_row(width))


def _legend_columns(width: float) -> int:
    return int((width - 2 * MARGIN) / _LEGEND_COLUMN)


def _bands(
    plan: Plan, colours: StageColours
) -> Mapping[GpuClassName, list[list[tuple[Fraction, Colour]]]]:
    """Return the used GPUs of each class as the shares on them, with their colours."""
    positions = {
        (model.model, pool.id): pool.position for model in plan.models for pool in model.pools
    }
    bands: defaultdict[GpuClassName, list[list[tuple[Fraction, Colour]]]] = defaultdict(list)
    for slot in gpu_slots(plan):
        bands[slot.gpu_class].append(
            [
                (each.share, colours[each.model, positions[each.model, each.pool]])
                for each in slot.instances
            ]
        )
    return bands


def _name_class(axes: Axes, gpu_class: PlannedClass, used: int, top: float) -> None:
    axes.text(MARGIN, top + 0.12, gpu_class.name, size=10, weight="bold", va="center", color=INK)
    facts = f"{used} of {gpu_class.count} used · {gpu_class.network_gbps:g} Gbit/s"
    axes.text(MARGIN, top + 0.31, facts, size=8.5, color=FAINT, va="center")


def _draw_tile(
    axes: Axes, corner: tuple[float, float], bands: Sequence[tuple[Fraction, Colour]]
) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    axes.add_patch(Rectangle(corner, _TILE, _TILE, facecolor=EMPTY, edgecolor="none"))
    for share, colour in bands:
        axes.add_patch(
            Rectangle((left, top), float(share) * _TILE, _TILE, facecolor=colour, edgecolor="white")
        )
        left += float(share) * _TILE
    axes.add_patch(
        Rectangle(corner, _TILE, _TILE, facecolor="none", edgecolor=FAINT, linewidth=0.8)
    )


def _draw_swatch(axes: Axes, left: float, middle: float, colour: Colour) -> None:
    from matplotlib.patches import Rectangle

    swatch = Rectangle(
        (left, middle - 0.08), 0.16, 0.16, facecolor=colour, edgecolor=FAINT, linewidth=0.6
    )
    axes.add_patch(swatch)

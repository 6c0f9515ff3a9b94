"""A plan as a map: who computes what, how requests flow, and which GPU holds which stage.

Above, one lane per model: its pools by stage, with the planned flow between them. Below, every
GPU of the fleet with the instances on it (`penstock.pictures.fleet`). Lengths are inches of the
picture, y pointing down.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.domain.ids import ModelName, PoolId
from penstock.domain.placement import gpu_slots
from penstock.domain.plan import ModelPlan, Plan, Pool
from penstock.domain.units import ms_from_micros
from penstock.pictures.canvas import (
    FAINT,
    INK,
    PALETTE,
    Colour,
    add_axes,
    new_figure,
    save,
    tint,
)
from penstock.pictures.fleet import (
    MARGIN,
    StageColours,
    draw_fleet,
    draw_legend,
    fleet_height,
    legend_height,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE = 0.95
_BOX_WIDTH, _BOX_HEIGHT, _BOX_GAP = 2.75, 0.86, 0.2
_FLOW = 1.3  # room for arrows between stages
_LANE_HEAD = 0.42
_LANE_GAP = 0.25
_LEAST_WIDTH = 10.5

# A stage further back in the pipeline is paler.
_STAGE_STRENGTHS = (1.0, 0.6, 0.36, 0.22)


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a pool stands."""

    left: float
    top: float

    @property
    def middle(self) -> float:
        return self.top + _BOX_HEIGHT / 2

    @property
    def right(self) -> float:
        return self.left + _BOX_WIDTH


@dataclass(frozen=True, slots=True)
class _Flow:
    """Samples per second from one pool to another; None is outside."""

    source: PoolId | None
    target: PoolId | None
    rps: float


def draw_pool_map(plan: Plan, path: Path, title: str = "Pool map") -> None:
    """Draw a plan.

    Args:
        plan: what to draw.
        path: .png, .svg or .html.
        title: name of the plan.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    colours = _stage_colours(plan)
    stages = max((pool.position + 1 for model in plan.models for pool in model.pools), default=1)
    lanes_width = 2 * (MARGIN + _FLOW) + stages * _BOX_WIDTH + (stages - 1) * _FLOW
    width = max(_LEAST_WIDTH, lanes_width)
    fleet_top = _TITLE + sum(_lane_height(model) for model in plan.models)
    legend_top = fleet_top + fleet_height(plan, width)
    height = legend_top + legend_height(len(colours), width) + 0.2
    figure = new_figure(width, height, title, _subtitle(plan))
    axes = add_axes(figure, 0, 0, 0, 0)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.patch.set_alpha(0)
    top = _TITLE
    for model in plan.models:
        _draw_lane(axes, model, top, colours)
        top += _lane_height(model)
    draw_fleet(axes, plan, fleet_top, width, colours)
    draw_legend(axes, legend_top, width, colours)
    save(figure, path)


def _subtitle(plan: Plan) -> str:
    gpus = sum(each.count for each in plan.gpu_classes)
    used = len(gpu_slots(plan))
    models = "1 model" if len(plan.models) == 1 else f"{len(plan.models)} models"
    return (
        f"{models} on {used} of {gpus} GPUs. A box is a pool of interchangeable instances; "
        "an arrow is the planned flow in requests per second."
    )


def _stage_colours(plan: Plan) -> dict[tuple[ModelName, int], Colour]:
    """Give each model a hue and each of its stages a strength."""
    colours: dict[tuple[ModelName, int], Colour] = {}
    for number, model in enumerate(plan.models):
        for position in sorted({pool.position for pool in model.pools}):
            strength = _STAGE_STRENGTHS[min(position, len(_STAGE_STRENGTHS) - 1)]
            colours[model.model, position] = tint(PALETTE[number % len(PALETTE)], strength)
    return colours


def _lane_height(model: ModelPlan) -> float:
    columns = [0] * (1 + max((pool.position for pool in model.pools), default=0))
    for pool in model.pools:
        columns[pool.position] += 1
    return _LANE_HEAD + max(columns) * (_BOX_HEIGHT + _BOX_GAP) + _LANE_GAP


def _draw_lane(axes: Axes, model: ModelPlan, top: float, colours: StageColours) -> None:
    axes.text(MARGIN, top + 0.1, model.model, size=12, weight="bold", color=INK, va="center")
    facts = (
        f"{model.throughput_rps:,.1f} requests/s planned · SLO "
        f"{ms_from_micros(model.slo_us):g} ms, of which {ms_from_micros(model.margin_us):g} ms "
        f"are kept free for queueing · {model.blocks} blocks"
    )
    indent = MARGIN + 0.125 * len(model.model) + 0.15
    axes.text(indent, top + 0.105, facts, size=9.5, color=FAINT, va="center")
    boxes = _place_boxes(model, top + _LANE_HEAD)
    flows = list(_flows(model))
    most = max((flow.rps for flow in flows), default=1.0) or 1.0
    for flow in flows:
        _draw_flow(axes, flow, boxes, most)
    for pool in model.pools:
        _draw_box(axes, pool, boxes[pool.id], colours[model.model, pool.position])


def _place_boxes(model: ModelPlan, top: float) -> dict[PoolId, _Box]:
    columns: defaultdict[int, list[Pool]] = defaultdict(list)
    for pool in model.pools:
        columns[pool.position].append(pool)
    highest = max((len(pools) for pools in columns.values()), default=0)
    boxes: dict[PoolId, _Box] = {}
    for position, pools in columns.items():
        left = MARGIN + _FLOW + position * (_BOX_WIDTH + _FLOW)
        start = top + (highest - len(pools)) * (_BOX_HEIGHT + _BOX_GAP) / 2
        for row, pool in enumerate(pools):
            boxes[pool.id] = _Box(left, start + row * (_BOX_HEIGHT + _BOX_GAP))
    return boxes


def _flows(model: ModelPlan) -> Iterator[_Flow]:
    """Yield the flow between each two neighbours, summed over pipelines."""
    rps: defaultdict[tuple[PoolId | None, PoolId | None], float] = defaultdict(float)
    for pipeline in model.pipelines:
        stops: list[PoolId | None] = [None, *pipeline.pools, None]
        for source, target in itertools.pairwise(stops):
            rps[source, target] += pipeline.throughput_rps
    for (source, target), flow in rps.items():
        yield _Flow(source, target, flow)


def _draw_flow(axes: Axes, flow: _Flow, boxes: Mapping[PoolId, _Box], most: float) -> None:
    if flow.source is None and flow.target is not None:
        end = (boxes[flow.target].left, boxes[flow.target].middle)
        start = (end[0] - _FLOW + 0.1, end[1])
    elif flow.target is None and flow.source is not None:
        start = (boxes[flow.source].right, boxes[flow.source].middle)
        end = (start[0] + _FLOW - 0.1, start[1])
    elif flow.source is not None and flow.target is not None:
        start = (boxes[flow.source].right, boxes[flow.source].middle)
        end = (boxes[flow.target].left, boxes[flow.target].middle)
    else:
        return
    axes.annotate(
        "",
        xy=(end[0] - 0.04, end[1]),
        xytext=(start[0] + 0.04, start[1]),
        arrowprops={
            "arrowstyle": "-|>,head_width=0.28,head_length=0.5",
            "color": FAINT,
            "linewidth": 1.0 + 3.0 * flow.rps / most,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 14,
        },
    )
    _label_flow(axes, flow, start, end)


def _label_flow(
    axes: Axes, flow: _Flow, start: tuple[float, float], end: tuple[float, float]
) -> None:
    level = start[1] == end[1]
    axes.text(
        (start[0] + end[0]) / 2,
        (start[1] + end[1]) / 2 - (0.1 if level else 0),
        f"{flow.rps:,.1f}/s",
        size=9,
        color=INK,
        ha="center",
        va="bottom" if level else "center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.9},
    )


def _draw_box(axes: Axes, pool: Pool, box: _Box, colour: Colour) -> None:
    from matplotlib.patches import Rectangle

    frame = (box.left, box.top)
    axes.add_patch(
        Rectangle(frame, _BOX_WIDTH, _BOX_HEIGHT, facecolor="white", edgecolor=FAINT, linewidth=0.9)
    )
    axes.add_patch(Rectangle(frame, 0.12, _BOX_HEIGHT, facecolor=colour, edgecolor="none"))
    part = f"{'one' if pool.share == 1 else pool.share} {pool.gpu_class}"
    who = "1 instance, on" if pool.instances == 1 else f"{pool.instances} instances, each on"
    first, last = pool.first_block, pool.end_block - 1
    blocks = f"block {last}" if first == last else f"blocks {first}-{last}"
    lines = (
        (0.2, f"{who} {part}", INK, "bold"),
        (0.45, f"stage {pool.position + 1}: {blocks}", INK, "normal"),
        (0.67, f"batch {pool.batch} in {ms_from_micros(pool.latency_us):,.1f} ms", FAINT, "normal"),
    )
    for offset, text, ink, weight in lines:
        axes.text(
            box.left + 0.22, box.top + offset, text, size=9, color=ink, weight=weight, va="center"
        )

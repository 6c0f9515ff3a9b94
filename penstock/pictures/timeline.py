"""What each instance computed when: one bar per batch, one row per instance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.domain.outcomes import Interval
from penstock.domain.units import Micros, ms_from_micros
from penstock.pictures.canvas import (
    EMPTY,
    FAINT,
    GRID,
    PALETTE,
    add_axes,
    ink_on,
    new_figure,
    save,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 13.0
_ROW_IN = 0.34
_LEAST_ROWS = 3
_BARS = 150  # more cannot be told apart
_LABEL_SHARE = 0.012  # of the window; narrower bars have no room for a number


def draw_timeline(
    intervals: Sequence[Interval],
    path: Path,
    *,
    window_us: tuple[Micros, Micros] | None = None,
    title: str = "Timeline",
) -> None:
    """Draw which instance computed which batch when.

    A batch keeps its colour through all stages, so that its way can be followed.

    Args:
        intervals: in any order, of any number of instances.
        path: .png, .svg or .html.
        window_us: first and last instant to show; None: all, or, of a long run, as much from
            its middle as can be told apart.
        title: what was run.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    start_us, end_us = window_us or _readable_window(intervals)
    shown = [each for each in intervals if each.end_us > start_us and each.start_us < end_us]
    rows = sorted({(each.stage, each.instance) for each in intervals})
    height = 1.75 + _ROW_IN * max(len(rows), _LEAST_ROWS)
    span_ms = ms_from_micros(end_us - start_us)
    subtitle = (
        f"{len({each.batch for each in shown}):,} batches in {span_ms:,.0f} ms; a batch keeps its "
        "colour from stage to stage; numbers count its samples"
    )
    figure = new_figure(_WIDTH, height, title, subtitle)
    label_in = 0.5 + 0.085 * max((len(instance) for _, instance in rows), default=0)
    axes = add_axes(figure, label_in, 0.7, 0.95, 0.9)
    _draw_rows(axes, rows, (ms_from_micros(start_us), ms_from_micros(end_us)))
    places = {row: place for place, row in enumerate(rows)}
    for each in shown:
        _draw_bar(axes, each, places[each.stage, each.instance], span_ms)
    save(figure, path)


def _readable_window(intervals: Sequence[Interval]) -> tuple[Micros, Micros]:
    if not intervals:
        return 0, 1
    ordered = sorted(intervals, key=lambda each: each.start_us)
    if len(ordered) > _BARS:
        middle = (len(ordered) - _BARS) // 2
        return ordered[middle].start_us, ordered[middle + _BARS].start_us
    return ordered[0].start_us, max(each.end_us for each in ordered)


def _draw_rows(axes: Axes, rows: Sequence[tuple[int, str]], window_ms: tuple[float, float]) -> None:
    axes.set_xlim(*window_ms)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [instance for _, instance in rows])
    axes.set_xlabel("time (ms)")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    for stage in sorted({stage for stage, _ in rows}):
        places = [place for place, row in enumerate(rows) if row[0] == stage]
        if stage % 2 == 0:
            axes.axhspan(places[0] - 0.5, places[-1] + 0.5, color=EMPTY, zorder=0, linewidth=0)
        axes.annotate(
            f"stage {stage + 1}",
            (1.0, (places[0] + places[-1]) / 2),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=FAINT,
        )


def _draw_bar(axes: Axes, each: Interval, place: int, span_ms: float) -> None:
    start_ms, end_ms = ms_from_micros(each.start_us), ms_from_micros(each.end_us)
    colour = tint(PALETTE[each.batch % len(PALETTE)], 0.9)
    axes.barh(
        place,
        end_ms - start_ms,
        left=start_ms,
        height=0.72,
        color=[colour],
        edgecolor="white",
        linewidth=0.6,
    )
    first_ms, last_ms = axes.get_xlim()
    visible_ms = min(end_ms, last_ms) - max(start_ms, first_ms)
    if visible_ms > _LABEL_SHARE * span_ms:
        axes.text(
            (max(start_ms, first_ms) + min(end_ms, last_ms)) / 2,
            place,
            str(each.samples),
            ha="center",
            va="center",
            size=8,
            color=ink_on(colour),
        )

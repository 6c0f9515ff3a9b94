"""Latencies of a load: how many were how fast, and when the slow ones were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.domain.outcomes import Outcome
from penstock.domain.units import Micros, ms_from_micros, seconds_from_micros
from penstock.pictures.canvas import ALARM, FAINT, GRID, INK, PALETTE, add_axes, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 12.0, 5.0
_FAR = 4.0  # times the slowest answer: an SLO beyond would flatten everything
_LATE = PALETTE[1]
_IN_TIME = PALETTE[0]


def draw_latency(
    outcomes: Sequence[Outcome], slo_us: Micros, path: Path, title: str = "Latency"
) -> None:
    """Draw the distribution of latencies and their course over time.

    Requests without an answer count as slower than any: the curve ends below 100 % by their
    share, and marks at the top of the second panel say when they were.

    Args:
        outcomes: of one load, at least one.
        slo_us: where to draw the line; each outcome is judged by its own SLO.
        path: .png, .svg or .html.
        title: what was measured.

    Raises:
        InvalidSettings: the suffix names no format.
        OSError: the file cannot be written.
    """
    in_time = sum(each.in_time for each in outcomes)
    attainment = in_time / len(outcomes) if outcomes else 1.0
    subtitle = f"{attainment:.2%} of {len(outcomes):,} requests were answered within their SLO"
    figure = new_figure(_WIDTH, _HEIGHT, title, subtitle)
    _draw_distribution(add_axes(figure, 0.85, 0.65, 6.45, 0.95), outcomes, slo_us)
    _draw_course(add_axes(figure, 6.55, 0.65, 0.35, 0.95), outcomes, slo_us)
    save(figure, path)


def _draw_distribution(axes: Axes, outcomes: Sequence[Outcome], slo_us: Micros) -> None:
    from matplotlib.ticker import PercentFormatter

    slo_ms = ms_from_micros(slo_us)
    latencies = sorted(each.latency_us for each in outcomes if each.latency_us is not None)
    values = [ms_from_micros(each) for each in latencies]
    shares = [(place + 1) / len(outcomes) for place in range(len(latencies))]
    right_ms = 1.08 * _visible_ms(slo_ms, values)
    axes.step([0.0, *values], [0.0, *shares], where="post", color=_IN_TIME, linewidth=2)
    axes.set_xlim(0, right_ms)
    axes.set_ylim(0, 1.04)
    axes.axvline(slo_ms, color=ALARM, linewidth=1.3, linestyle=(0, (5, 3)))
    left_side = slo_ms > right_ms / 2
    axes.annotate(
        f"SLO {slo_ms:g} ms" + (" →" if slo_ms > right_ms else ""),
        (min(slo_ms, right_ms), 0.04),
        xytext=(-6 if left_side else 6, 0),
        textcoords="offset points",
        ha="right" if left_side else "left",
        color=ALARM,
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("latency (ms), from the intended send")
    axes.set_ylabel("requests answered within it")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _mark_quantiles(axes, values, len(outcomes))


def _visible_ms(slo_ms: float, latencies_ms: Sequence[float]) -> float:
    """Return what an axis has to show: all latencies, and the SLO unless it is far away."""
    slowest_ms = max(latencies_ms, default=slo_ms)
    return slowest_ms if slo_ms > _FAR * slowest_ms else max(slo_ms, slowest_ms)


def _mark_quantiles(axes: Axes, values: Sequence[float], total: int) -> None:
    """Mark p50 and p99 of all requests where that many were answered."""
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        place = max(1, math.ceil(share * total)) - 1
        if place < len(values):
            on_left = values[place] > 0.7 * axes.get_xlim()[1]
            axes.plot([values[place]], [share], "o", color=_IN_TIME, markersize=5)
            axes.annotate(
                f"{name}  {values[place]:.1f} ms",
                (values[place], share),
                xytext=(-8 if on_left else 8, -13),
                textcoords="offset points",
                ha="right" if on_left else "left",
                color=INK,
            )


def _draw_course(axes: Axes, outcomes: Sequence[Outcome], slo_us: Micros) -> None:
    slo_ms = ms_from_micros(slo_us)
    answered = [each for each in outcomes if each.latency_us is not None]
    latencies = [ms_from_micros(each.latency_us or 0) for each in answered]
    highest_ms = _visible_ms(slo_ms, latencies)
    for in_time, colour, name in ((True, _IN_TIME, "in time"), (False, _LATE, "too late")):
        chosen = [each for each in answered if each.in_time is in_time]
        if chosen:
            times = [seconds_from_micros(each.arrival_us) for each in chosen]
            values = [ms_from_micros(each.latency_us or 0) for each in chosen]
            label = f"{name} ({len(chosen):,})"
            axes.scatter(times, values, s=7, color=colour, linewidths=0, alpha=0.65, label=label)
    _draw_refusals(axes, outcomes, 1.1 * highest_ms)
    if slo_ms <= highest_ms:
        axes.axhline(slo_ms, color=ALARM, linewidth=1.3, linestyle=(0, (5, 3)), label="SLO")
    axes.set_ylim(0, 1.2 * highest_ms)
    axes.set_xlim(left=0)
    axes.set_xlabel("time of the intended send (s)")
    axes.set_ylabel("latency (ms)")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        frameon=False,
        fontsize=9,
        handletextpad=0.3,
        columnspacing=1.2,
    )


def _draw_refusals(axes: Axes, outcomes: Sequence[Outcome], height_ms: float) -> None:
    refused = [each for each in outcomes if each.latency_us is None]
    if refused:
        times = [seconds_from_micros(each.arrival_us) for each in refused]
        label = f"no answer ({len(refused):,})"
        heights = [height_ms] * len(refused)
        axes.scatter(times, heights, s=28, marker="x", color=ALARM, linewidths=1.1, label=label)
        axes.axhline(height_ms, color=FAINT, linewidth=0.5, zorder=0)

"""The planner's verbs about many plans: curve and frontier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from penstock.console import note, progress, show_json, show_text
from penstock.options import finite
from planner.asked import (
    AsJson,
    Asked,
    ClusterFile,
    ObjectiveName,
    Picture,
    ProfilesOption,
    Solver,
    SolverOption,
    all_but,
    asks,
    fleet_with,
)

if TYPE_CHECKING:
    from planner.frontier import CurvePoint, FrontierPoint

T = TypeVar("T")

_SCALES = "0.5,0.75,1,1.5,2"
_MOST_SCALE = 1e6

TotalTime = Annotated[
    float,
    typer.Option("--time-limit", min=0.1, callback=finite, help="Seconds for all points together."),
]


@asks(*all_but("max_price_per_hour", "time_limit_s"))
def curve(
    cluster: ClusterFile,
    profiles: ProfilesOption = Path("profiles"),
    slo_scale: Annotated[
        str, typer.Option(help="Multiples of every SLO, separated by commas.")
    ] = _SCALES,
    *,
    asked: Asked,
    time_limit: TotalTime = 120.0,
    solver: SolverOption = Solver.HIGHS,
    plot: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Plan a fleet at several scales of its SLOs, with models cut and whole.

    Ctrl-C ends it with the points planned so far.
    """
    from planner.files import load_profiles
    from planner.frontier import slo_curve
    from planner.study_words import curve_table

    scales = _scales(slo_scale)
    fleet = fleet_with(cluster, asked)
    inputs = load_profiles(profiles, fleet)
    points = slo_curve(fleet, inputs, scales, time_limit_s=time_limit, solver=solver.value)
    found, interrupted = _collect(points, len(scales), "SLO scales planned", quiet=as_json)
    if plot is not None:
        _draw_curve(found, plot)
    if as_json:
        show_json({"objective": fleet.options.objective, "points": [asdict(p) for p in found]})
    else:
        show_text(curve_table(found))
    _end(plot, interrupted=interrupted)


@asks(*all_but("objective", "max_price_per_hour", "time_limit_s"))
def frontier(
    cluster: ClusterFile,
    profiles: ProfilesOption = Path("profiles"),
    points: Annotated[int, typer.Option(min=1, max=1000, help="Levels of throughput.")] = 8,
    *,
    asked: Asked,
    time_limit: TotalTime = 120.0,
    solver: SolverOption = Solver.HIGHS,
    plot: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Find the least cost of several levels of throughput, up to the fleet's greatest.

    Models are served in proportion to their weights. Without prices, GPUs are counted instead.
    Ctrl-C ends it with the points planned so far.
    """
    from planner.files import load_profiles
    from planner.frontier import cost_frontier
    from planner.study_words import frontier_table

    fleet = fleet_with(cluster, {**asked, "objective": ObjectiveName.MAX_MIN})
    inputs = load_profiles(profiles, fleet)
    levels = cost_frontier(fleet, inputs, points, time_limit_s=time_limit, solver=solver.value)
    found, interrupted = _collect(levels, points, "levels planned", quiet=as_json)
    if plot is not None:
        _draw_frontier(found, plot)
    if as_json:
        show_json({"points": [asdict(each) for each in found]})
    else:
        show_text(frontier_table(found))
    _end(plot, interrupted=interrupted)


def _collect(points: Iterable[T], total: int, what: str, *, quiet: bool) -> tuple[list[T], bool]:
    """Return the points, or those that were there when Ctrl-C was pressed; and whether it was."""
    from planner.interrupts import give_up, noticed

    found: list[T] = []
    with noticed() as interrupts, progress(quiet=quiet) as bar:
        task = bar.add_task(what, total=total)
        try:
            for point in points:
                found.append(point)
                bar.advance(task)
                if interrupts:
                    break
        except KeyboardInterrupt:
            bar.stop()
    told = f"interrupted: {len(found)} of {total} {what}"
    if not found:
        give_up(told)
    if interrupts:
        note(told)
    return found, bool(interrupts)


def _scales(text: str) -> list[float]:
    """Read numbers separated by commas."""
    from penstock.domain.errors import InvalidSettings

    found = []
    for part in text.split(","):
        try:
            scale = float(part)
        except ValueError:
            scale = math.nan
        if not 0 < scale <= _MOST_SCALE:
            expected = "numbers of more than 0, separated by commas"
            raise InvalidSettings("--slo-scale", "", expected, repr(part.strip()))
        found.append(scale)
    return sorted(set(found))


def _end(plot: Path | None, *, interrupted: bool) -> None:
    from planner.interrupts import leave_at_once

    if plot is not None:
        note(f"wrote {plot}")
    if interrupted:
        leave_at_once(0)


def _draw_curve(points: Sequence[CurvePoint], path: Path) -> None:
    from penstock.pictures.curve import draw_slo_curve
    from penstock.pictures.values import ScalePoint

    series = {
        name: [
            ScalePoint(scale=each.scale, value=value.found, bound=value.bound)
            for each in points
            for value in [each.pooled if pooled else each.whole]
        ]
        for name, pooled in (("models cut into stages", True), ("models whole", False))
    }
    draw_slo_curve(series, path, unit=_axis(points[0].unit))


def _draw_frontier(points: Sequence[FrontierPoint], path: Path) -> None:
    from penstock.pictures.frontier import draw_frontier
    from penstock.pictures.values import LevelPoint

    levels, proven = [], 0.0
    for each in sorted(points, key=lambda point: point.level_rps):
        # More throughput takes no less, so a bound holds for the levels above it, too.
        if each.spent is not None:
            proven = max(proven, min(each.bound or 0.0, each.spent))
        level = LevelPoint(
            level_rps=each.level_rps,
            spent=each.spent,
            bound=proven,
            gpus={str(name): count for name, count in each.gpus.items()},
            infeasible=each.infeasible,
        )
        levels.append(level)
    draw_frontier(levels, path, unit=_axis(points[0].unit))


def _axis(unit: str) -> str:
    names = {"per-hour": "cost per hour", "gpus": "GPUs in use"}
    return names.get(unit, "throughput (samples per second)")

"""The command `penstock sweep`: plans and policies over a range of loads, in rows and pictures."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.command import INTERRUPTED
from penstock.console import note, progress, show, show_json
from penstock.domain.units import micros_from_seconds
from penstock.load_options import (
    USUAL_LAW,
    ArrivalsOption,
    TraceOption,
    TraceWindowOption,
    arrivals_asked,
)
from penstock.options import finite
from simulator.scenario_options import (
    USUAL_SPAN_US,
    DetectionOption,
    DurationOption,
    FailOption,
    JitterOption,
    MtbfOption,
    MttrOption,
    ProfileErrorOption,
    StragglerOption,
    WarmupOption,
    WireFactorOption,
    scenario_asked,
)

if TYPE_CHECKING:
    from penstock.domain.plan import Plan
    from simulator.sweeps.files import SweepFiles
    from simulator.sweeps.sweep import Series, Sweep
    from simulator.sweeps.words import Point

_SAVE_S = 2.0  # rows are written so often; an interrupt or an error writes them, too


class Format(StrEnum):
    """Of pictures."""

    PNG = "png"
    SVG = "svg"
    HTML = "html"


def sweep(
    plans: Annotated[list[Path], typer.Argument(metavar="PLAN...", help="Plans to compare.")],
    out: Annotated[Path, typer.Option(help="Directory for rows and pictures; new or empty.")],
    loads: Annotated[
        str,
        typer.Option(
            metavar="FROM:TO:STEP",
            help="Loads, as multiples of planned throughput; or 0.8,0.9,1 and mixtures.",
        ),
    ] = "0.5:1.2:0.1",
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN",
            help="Plan whose throughput is a load of 1, so that all plans are offered the same "
            "requests; without it, each plan's own is.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Batching policy; may be repeated. [reservation]")
    ] = None,
    routing: Annotated[
        list[str] | None, typer.Option(help="Routing policy; may be repeated. [least-queueing]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each load.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first; the next adds 1000.")] = 0,
    arrivals: ArrivalsOption = None,
    trace: TraceOption = None,
    trace_window: TraceWindowOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = 0.0,
    jitter: JitterOption = 0.0,
    straggler: StragglerOption = None,
    profile_error: ProfileErrorOption = None,
    wire_factor: WireFactorOption = 1.0,
    fail: FailOption = None,
    mtbf: MtbfOption = None,
    mttr: MttrOption = None,
    detection: DetectionOption = 0.0,
    target: Annotated[
        float, typer.Option(min=0.01, max=1, callback=finite, help="Attainment that is wanted.")
    ] = 0.99,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; one per core of this machine.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --out, if its options agree.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the sweep in --out; other files stay.")
    ] = False,
    picture_format: Annotated[
        Format, typer.Option("--format", help="Of the pictures.")
    ] = Format.PNG,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw them, too.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate plans and policies over a range of loads, several seeds each, on all cores.

    Writes runs.csv, utilisation.csv, sweep.json and pictures into --out. Ctrl-C ends it and keeps
    the finished runs; --resume goes on.
    """
    from simulator.sweeps.asked import loads_of, names_of, once
    from simulator.sweeps.files import SweepFiles, check_directory
    from simulator.sweeps.settings import settings_of
    from simulator.sweeps.sweep import SEED_STEP, Sweep
    from simulator.sweeps.words import points_of, sweep_json, sweep_tables

    chosen_loads = loads_of(loads)
    files = names_of(plans)
    check_directory(out, resume=resume, force=force)
    duration_us = None if duration is None else micros_from_seconds(duration)
    asked = arrivals_asked(
        arrivals=arrivals,
        trace=trace,
        trace_window=trace_window,
        rate_scale=None,
        duration_us=duration_us,
        fit=("--loads", chosen_loads[0]),
    )
    the_sweep = Sweep(
        plans={name: _plan(path) for name, path in files.items()},
        base=None if base is None else _plan(base),
        policies=once("--policy", policy or ["reservation"]),
        routings=once("--routing", routing or ["least-queueing"]),
        loads=chosen_loads,
        seeds=tuple(seed + SEED_STEP * number for number in range(seeds)),
        asked=asked,
        span_us=USUAL_SPAN_US if duration_us is None else duration_us,
        scenario=scenario_asked(
            warmup=warmup,
            jitter=jitter,
            straggler=straggler,
            profile_error=profile_error,
            wire_factor=wire_factor,
            fail=fail,
            mtbf=mtbf,
            mttr=mttr,
            detection=detection,
        ),
    )
    the_sweep.check()
    results = SweepFiles(out, the_sweep)
    settings = settings_of(the_sweep, files, base, trace or arrivals or USUAL_LAW)
    if resume and out.exists() and any(out.iterdir()):
        results.take_up(settings)
    else:
        results.begin(settings)
    _simulate(the_sweep, results, _cores() if jobs is None else jobs, out, quiet=as_json)
    found = points_of(results.finished())
    drawn = _draw(the_sweep, found, out, picture_format, target) if pictures else ()
    if as_json:
        files_written = [str(each) for each in (*results.paths, *drawn)]
        show_json({"files": files_written, **sweep_json(found, target)})
    else:
        show(*sweep_tables(found, target))
        note(f"wrote {', '.join(each.name for each in (*results.paths, *drawn))} into {out}")


def _plan(path: Path) -> Plan:
    from penstock.domain.errors import InvalidPlan
    from penstock.formats.plans import read_plan

    try:
        return read_plan(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise InvalidPlan(str(path), "", "text in UTF-8", "other bytes") from None


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _simulate(sweep: Sweep, results: SweepFiles, jobs: int, out: Path, *, quiet: bool) -> None:
    """Simulate what is missing; whatever ends it, finished runs are in their files.

    Raises:
        Exit: Ctrl-C was pressed.
    """
    from simulator.sweeps.crew import worked
    from simulator.sweeps.rows import rows_of

    missing = results.missing()
    total = len(sweep.runs())
    try:
        with (
            progress(quiet=quiet) as bar,
            closing(worked(partial(rows_of, sweep), missing, jobs)) as ended,
        ):
            task = bar.add_task("runs simulated", total=total, completed=total - len(missing))
            saved = time.monotonic()
            for run, rows in ended:
                results.add(run, rows)
                bar.advance(task)
                if time.monotonic() - saved > _SAVE_S:
                    results.save()
                    saved = time.monotonic()
    except KeyboardInterrupt:
        done = total - len(results.missing())
        note(f"interrupted: {done} of {total} runs are in {out}; --resume goes on")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        results.save()


def _draw(
    sweep: Sweep,
    found: Mapping[Series, Sequence[Point]],
    out: Path,
    picture_format: Format,
    target: float,
) -> tuple[Path, ...]:
    from simulator.sweeps.pictures import draw_sweep

    return draw_sweep(sweep, found, out, f".{picture_format.value}", target)

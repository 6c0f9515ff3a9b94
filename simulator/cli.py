"""The command `penstock simulate`: reads a plan and a load, prints what would happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.console import progress, show, show_json
from penstock.domain.units import micros_from_seconds
from penstock.options import drawable, finite

if TYPE_CHECKING:
    from simulator.simulate import Simulation


def simulate(
    plan: Annotated[Path, typer.Argument(help="The plan to run.")],
    load: Annotated[
        float,
        typer.Option(
            min=0.001, callback=finite, help="Offered rate, as a multiple of the planned one."
        ),
    ] = 0.9,
    arrivals: Annotated[str, typer.Option(help="Arrival law: poisson or constant.")] = "poisson",
    trace: Annotated[
        Path | None, typer.Option(help="Arrivals from a CSV file instead of a law.")
    ] = None,
    duration: Annotated[
        float, typer.Option(min=0.1, callback=finite, help="Seconds of offered load.")
    ] = 30.0,
    warmup: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Seconds at the start not counted.")
    ] = 0.0,
    policy: Annotated[str, typer.Option(help="Batching policy.")] = "reservation",
    routing: Annotated[str, typer.Option(help="Routing policy.")] = "least-queueing",
    jitter: Annotated[
        float,
        typer.Option(
            min=0.0, callback=finite, help="Sigma of the log-normal factor on compute times."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of arrivals and jitter.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(callback=drawable, help="Draw a timeline: png, svg or html.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write one CSV line per request.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a plan under a load in simulated time, with the scheduler that serves live."""
    from penstock.formats.plans import read_plan
    from penstock.formats.traces import read_trace
    from simulator.report import outcomes_csv, summary_json, summary_table
    from simulator.simulate import Scenario, planned_load, simulate_plan

    the_plan = read_plan(plan.read_text(encoding="utf-8"), str(plan))
    span_us = micros_from_seconds(duration)
    if trace is not None:
        offered = list(read_trace(trace.read_text(encoding="utf-8"), str(trace)))
        span_us = max([span_us] + [each.arrival_us + 1 for each in offered])
    else:
        offered = planned_load(the_plan, load, span_us, arrivals, seed)
    scenario = Scenario(
        batching=policy,
        routing=routing,
        jitter_sigma=jitter,
        warmup_us=micros_from_seconds(warmup),
        seed=seed,
    )
    with progress(quiet=as_json) as bar:
        task = bar.add_task("simulated ms", total=span_us // 1_000)
        result = simulate_plan(
            the_plan,
            offered,
            span_us,
            scenario,
            lambda now_us: bar.update(task, completed=now_us // 1_000),
        )
    if out is not None:
        out.write_text(outcomes_csv(result), encoding="utf-8")
    if plot is not None:
        _draw(result, plot)
    if as_json:
        show_json(summary_json(the_plan, result))
    else:
        show(summary_table(the_plan, result))


def _draw(result: Simulation, path: Path) -> None:
    from penstock.pictures.timeline import draw_timeline

    draw_timeline(result.intervals, path, title="Simulated timeline")

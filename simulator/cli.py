"""The command `penstock simulate`: reads a plan and a load, prints what would happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.console import progress, show, show_json
from penstock.domain.errors import InvalidSettings
from penstock.domain.units import Micros, micros_from_seconds
from penstock.load_options import (
    ArrivalsOption,
    RateScaleOption,
    TraceOption,
    TraceWindowOption,
    arrivals_asked,
)
from penstock.options import drawable, finite
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
    from penstock.arrivals import Law, Replay
    from penstock.domain.arrivals import Load
    from penstock.domain.plan import Plan
    from simulator.simulate import Scenario, Simulation

USUAL_LOAD = 0.9


def simulate(
    plan: Annotated[Path, typer.Argument(help="The plan to run.")],
    load: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            callback=finite,
            help="Offered rate, as a multiple of the planned one; 0.9, or as the trace has it.",
        ),
    ] = None,
    arrivals: ArrivalsOption = None,
    trace: TraceOption = None,
    trace_window: TraceWindowOption = None,
    rate_scale: RateScaleOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = 0.0,
    policy: Annotated[
        str,
        typer.Option(help="Batching policy: NAME, NAME:parameter=value, per-hop:NAME per stage."),
    ] = "reservation",
    routing: Annotated[str, typer.Option(help="Routing policy, likewise.")] = "least-queueing",
    jitter: JitterOption = 0.0,
    straggler: StragglerOption = None,
    profile_error: ProfileErrorOption = None,
    wire_factor: WireFactorOption = 1.0,
    fail: FailOption = None,
    mtbf: MtbfOption = None,
    mttr: MttrOption = None,
    detection: DetectionOption = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    find_max_load: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            callback=finite,
            help="Find the greatest load of each model at this attainment, such as 0.99.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Seeds that the greatest load is a mean of.")
    ] = 5,
    plot: Annotated[
        Path | None, typer.Option(callback=drawable, help="Draw a timeline: png, svg or html.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write one CSV line per request.")] = None,
    run_log: Annotated[
        Path | None, typer.Option(help="Log all events and effects, for `penstock replay`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a plan under a load in simulated time, with the scheduler that serves live."""
    from penstock.formats.plans import read_plan
    from simulator.report import class_table, outcomes_csv, summary_json, summary_table
    from simulator.run_log import run_log as logged
    from simulator.simulate import simulate_plan

    duration_us = None if duration is None else micros_from_seconds(duration)
    asked = arrivals_asked(
        arrivals=arrivals,
        trace=trace,
        trace_window=trace_window,
        rate_scale=rate_scale,
        duration_us=duration_us,
        fit=("--load", load),
    )
    the_plan = read_plan(plan.read_text(encoding="utf-8"), str(plan))
    scenario = scenario_asked(
        warmup=warmup,
        jitter=jitter,
        straggler=straggler,
        profile_error=profile_error,
        wire_factor=wire_factor,
        fail=fail,
        mtbf=mtbf,
        mttr=mttr,
        detection=detection,
    )
    scenario = replace(scenario, batching=policy, routing=routing, seed=seed)
    scenario.check(the_plan)
    if find_max_load is not None:
        given = {"--load": load, "--trace": trace, "--plot": plot, "--out": out, "--fail": fail}
        _refuse({**given, "--run-log": run_log})
        _find_max_load(
            the_plan, asked, duration_us, scenario, find_max_load, seeds, as_json=as_json
        )
        return
    offered = _offered(the_plan, asked, load, duration_us, seed)
    with progress(quiet=as_json) as bar, logged(run_log, policy, routing) as log:
        task = bar.add_task("simulated ms", total=offered.span_us // 1_000)
        result = simulate_plan(
            the_plan,
            offered.arrivals,
            offered.span_us,
            scenario,
            lambda now_us: bar.update(task, completed=now_us // 1_000),
            log=log,
        )
    if out is not None:
        out.write_text(outcomes_csv(result), encoding="utf-8")
    if plot is not None:
        _draw(result, plot)
    if as_json:
        show_json(summary_json(the_plan, result))
    else:
        show(summary_table(the_plan, result), class_table(the_plan, result))


def _refuse(given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing where a load is to be found.

    Raises:
        InvalidSettings: one was given.
    """
    for option, value in given.items():
        if value:
            raise InvalidSettings("--find-max-load", "", f"no {option} beside it", option)


def _find_max_load(
    plan: Plan,
    asked: Law | Replay,
    duration_us: Micros | None,
    scenario: Scenario,
    target: float,
    seeds: int,
    *,
    as_json: bool,
) -> None:
    from penstock.arrivals import Replay
    from simulator.max_load import max_load_json, max_load_table, max_loads
    from simulator.sustain import Trials

    if isinstance(asked, Replay):
        raise InvalidSettings("--find-max-load", "", "an arrival law", "a trace")
    span_us = USUAL_SPAN_US if duration_us is None else duration_us
    trials = Trials(law=asked, span_us=span_us, target=target, scenario=scenario)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("models and seeds", total=seeds * len(plan.models))
        found = max_loads(plan, trials, seeds, lambda: bar.advance(task))
    if as_json:
        show_json(max_load_json(found, target))
    else:
        show(max_load_table(found, target))


def _offered(
    plan: Plan, asked: Law | Replay, load: float | None, duration_us: Micros | None, seed: int
) -> Load:
    from penstock.arrivals import Replay
    from penstock.domain.arrivals import Load
    from simulator.load import replayed_load
    from simulator.simulate import planned_load

    if isinstance(asked, Replay):
        return replayed_load(plan, asked, load, seed)
    span_us = USUAL_SPAN_US if duration_us is None else duration_us
    arrivals = planned_load(plan, USUAL_LOAD if load is None else load, span_us, asked, seed)
    return Load(arrivals=tuple(arrivals), span_us=span_us)


def _draw(result: Simulation, path: Path) -> None:
    from penstock.pictures.timeline import draw_timeline

    draw_timeline(result.intervals, path, title="Simulated timeline")

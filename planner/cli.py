"""The planner's verbs: plan, check, explain, diff. Parses options, opens files, prints.

Decides nothing. The solver and the formats are imported inside the verbs, so that
`penstock --help` stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.console import note, progress, show_json, show_text
from penstock.domain.errors import InvalidSettings
from penstock.options import drawable, finite
from planner.asked import (
    AsJson,
    Asked,
    ClusterFile,
    ProfilesOption,
    Solver,
    SolverOption,
    all_but,
    asks,
    fleet_with,
)

if TYPE_CHECKING:
    from penstock.domain.cluster import Cluster
    from penstock.domain.ids import ModelName
    from penstock.domain.plan import Plan
    from planner.inputs import Profiles
    from simulator.sustain import Trials

AUTO = "auto"
TRIAL_US = 20_000_000  # simulated
MARGIN_SHARES = 8  # of the time limit: so much of it may one plan take

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json")]


@asks(*all_but("slo_margin"))
def plan(
    cluster: ClusterFile,
    profiles: ProfilesOption = Path("profiles"),
    out: Annotated[Path, typer.Option(help="Where the plan goes.")] = Path("plan.json"),
    repository: Annotated[
        Path | None, typer.Option(help="Model repository; binds the plan to its blocks.")
    ] = None,
    running: Annotated[
        Path | None,
        typer.Option(help="The plan in force: of equally good plans, keep most of its instances."),
    ] = None,
    *,
    asked: Asked,
    margin: Annotated[
        str | None,
        typer.Option(
            help="Part of the SLO kept for queueing; auto: for each model, found by simulation."
        ),
    ] = None,
    target: Annotated[
        float, typer.Option(min=0.01, max=1, callback=finite, help="Attainment, for auto.")
    ] = 0.99,
    arrivals: Annotated[str, typer.Option(help="Arrival law, for auto.")] = "poisson",
    policy: Annotated[str, typer.Option(help="Batching policy, for auto.")] = "reservation",
    jitter: Annotated[
        float,
        typer.Option(min=0.0, callback=finite, help="Sigma of log-normal compute times, for auto."),
    ] = 0.0,
    solver: SolverOption = Solver.HIGHS,
    no_partition: Annotated[
        bool, typer.Option("--no-partition", help="Keep models whole: the baseline.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(callback=drawable, help="Draw the pool map (png, svg, html).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the best plan for a fleet within the SLOs of its models.

    Options override the cluster file. Ctrl-C ends the search: the best plan found so far is
    written, with the gap that was left.
    """
    from planner.computed import computed_otherwise
    from planner.files import load_blocks_digests, load_plan, load_profiles
    from planner.interrupts import give_up, leave_at_once, noticed
    from planner.planning import make_plan

    fixed = _fixed_margin(margin)
    if margin == AUTO and (running is not None or no_partition):
        found_with = "--running" if running is not None else "--no-partition"
        raise InvalidSettings("--margin auto", "", "no --running, no --no-partition", found_with)
    fleet = fleet_with(cluster, {**asked, "slo_margin": fixed})
    inputs = load_profiles(profiles, fleet)
    for each in computed_otherwise(fleet, inputs, profiles):
        note(f"warning: {each}")
    digests = load_blocks_digests(repository, fleet) if repository else {}
    in_force = load_plan(running) if running else None
    with noticed() as interrupts:
        try:
            if margin == AUTO:
                trials = _trials(arrivals, policy, target, jitter, fleet.options.seed)
                found = _with_margins(fleet, inputs, trials, digests, solver, quiet=as_json)
            else:
                found = make_plan(
                    fleet,
                    inputs,
                    partition=not no_partition,
                    blocks_digests=digests,
                    solver=solver.value,
                    running=in_force,
                )
        except KeyboardInterrupt:
            give_up("interrupted before any plan was found")
    _hand_over(found, in_force, out, plot, as_json=as_json)
    if interrupts:
        note(f"interrupted: the best plan found so far, {found.solve.gap:.2%} from its bound")
        leave_at_once(0)


def _fixed_margin(margin: str | None) -> float | None:
    """Return a margin given as a number; None for `auto` and where none is given."""
    if margin is None or margin == AUTO:
        return None
    try:
        found = float(margin)
    except ValueError:
        found = math.nan
    if not 0 <= found < 1:
        told = f"{margin!r} is neither a part of the SLO, 0 to 1, nor auto"
        raise typer.BadParameter(told, param_hint="--margin")
    return found


def _trials(arrivals: str, policy: str, target: float, jitter: float, seed: int) -> Trials:
    from penstock.arrivals import law_of
    from simulator.simulate import Scenario
    from simulator.sustain import Trials

    scenario = Scenario(batching=policy, jitter_sigma=jitter, seed=seed)
    scenario.check()
    law = law_of(arrivals)
    return Trials(law=law, span_us=TRIAL_US, target=target, scenario=scenario)


def _with_margins(
    fleet: Cluster,
    inputs: Profiles,
    trials: Trials,
    digests: Mapping[ModelName, str],
    solver: Solver,
    *,
    quiet: bool,
) -> Plan:
    """Look for margins, telling each try on stderr."""
    from planner.margin_loop import plan_with_margins
    from planner.words import tried

    limit_s = fleet.options.time_limit_s
    chosen = plan_with_margins(
        replace(fleet, options=replace(fleet.options, time_limit_s=limit_s / MARGIN_SHARES)),
        inputs,
        trials,
        blocks_digests=digests,
        solver=solver.value,
        seconds=limit_s,
        on_try=lambda each: None if quiet else note(tried(each)),
    )
    if not quiet:
        note("margins found; to check or plan again with them, give the models in the file")
        for model in chosen.plan.models:
            note(f"  {model.model}: margin_ms: {model.margin_us / 1_000:g}")
        note(f"  and the planner batch_build_factor: {chosen.setting.batch_build_factor:g}")
    return chosen.plan


@asks(*all_but("time_limit_s", "seed"))
def check(
    plan_file: PlanFile,
    cluster: Annotated[Path, typer.Option(help="cluster.yaml")] = Path("cluster.yaml"),
    profiles: ProfilesOption = Path("profiles"),
    *,
    asked: Asked,
    as_json: AsJson = False,
) -> None:
    """Verify a plan against its inputs, without the code that made it.

    Give the options that the plan was made with, where they differ from the cluster file.
    """
    from penstock.domain.errors import InvalidPlan
    from planner.digests import input_digests
    from planner.files import load_plan, load_profiles
    from planner.verify import find_faults, told
    from planner.words import valued

    fleet = fleet_with(cluster, asked)
    found = load_plan(plan_file)
    measured = load_profiles(profiles, fleet)
    faults = tuple(find_faults(found, fleet, measured, input_digests(fleet, measured)))
    if as_json:
        show_json({"plan": str(plan_file), "verified": not faults, "faults": list(faults)})
    if faults:
        raise InvalidPlan(str(plan_file), "", "a plan that its inputs allow", told(faults))
    if not as_json:
        solve = found.solve
        show_text(f"{plan_file}: verified, {solve.objective} {valued(solve.value, solve.unit)}")


@asks("max_stages", "max_batch", "spare_gpus", "max_price_per_hour")
def explain(
    plan_file: PlanFile,
    cluster: Annotated[
        Path | None, typer.Option(help="cluster.yaml: then also what more would be worth.")
    ] = None,
    profiles: ProfilesOption = Path("profiles"),
    *,
    asked: Asked,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, callback=finite, help="Time for planning each change again."),
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Say in words what a plan does: stages, latency budget, GPUs, what binds.

    With --cluster and --profiles also what one more GPU of each class and longer SLOs would be
    worth. Give the options that the plan was made with, where they differ from the cluster file.
    """
    from planner.explain import explain as in_words
    from planner.explain import facts
    from planner.files import load_plan

    found = load_plan(plan_file)
    told, words = facts(found), in_words(found)
    if cluster is not None:
        more, more_words = _outlook(plan_file, found, cluster, profiles, asked, seconds, as_json)
        told, words = {**told, "outlook": more}, f"{words}\n\n{more_words}"
    if as_json:
        show_json(told)
    else:
        show_text(words)


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="plan.json")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="plan.json")],
    as_json: AsJson = False,
) -> None:
    """Compare two plans: throughputs, pipelines, pools, GPUs, cost, instances kept.

    The exit code is 0 whether they differ or not; `same` in the JSON tells.
    """
    from planner.diff import compare
    from planner.diff_words import diff_facts, diff_text
    from planner.files import load_plan

    found = compare(load_plan(old), load_plan(new))
    if as_json:
        show_json(diff_facts(found))
    else:
        show_text(diff_text(found))


def _outlook(
    plan_file: Path,
    found: Plan,
    cluster: Path,
    profiles: Path,
    asked: Asked,
    seconds: float,
    quiet: bool,
) -> tuple[dict[str, Any], str]:
    from planner.files import load_profiles
    from planner.interrupts import give_up, noticed
    from planner.outlook import look_ahead, plannings
    from planner.outlook_words import outlook_facts, outlook_text
    from planner.variants import as_planned

    shown: dict[str, str] = {"objective": found.solve.objective, "packing": found.packing}
    if found.solve.formulation in {"general", "compat"}:
        shown["mode"] = found.solve.formulation
    fleet = fleet_with(cluster, {**asked, **shown})
    inputs = load_profiles(profiles, fleet)
    same = as_planned(fleet, inputs, found, str(plan_file))
    with noticed() as interrupts, progress(quiet=quiet) as bar:
        task = bar.add_task("planning again", total=plannings(same))

        def tick() -> None:
            bar.advance(task)
            if interrupts:  # the planner took it for the end of its time
                raise KeyboardInterrupt

        try:
            outlook = look_ahead(same, inputs, found, seconds_each=seconds, tick=tick)
        except KeyboardInterrupt:
            bar.stop()
            give_up("interrupted before all was planned again")
    return outlook_facts(outlook, found), outlook_text(outlook, found)


def _hand_over(
    found: Plan, in_force: Plan | None, out: Path, plot: Path | None, *, as_json: bool
) -> None:
    """Write the plan, say what it is."""
    from penstock.formats.plans import write_plan
    from planner.diff import compare
    from planner.explain import explain as in_words
    from planner.files import save_plan

    save_plan(found, out)
    if plot is not None:
        from penstock.pictures.poolmap import draw_pool_map

        draw_pool_map(found, plot)
    show_text(write_plan(found) if as_json else in_words(found))
    if in_force is not None:
        change = compare(in_force, found)
        note(
            f"of {change.kept + change.stopped} running instances {change.kept} are kept, "
            f"{change.stopped} stopped; {change.started} are started"
        )
    note(f"wrote {out}")

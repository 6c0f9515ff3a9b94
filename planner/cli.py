"""The planner's verbs: plan, check, explain. Parses options, opens files, prints; decides nothing.

The solver and the formats are imported inside the verbs, so that `penstock --help` stays quick.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.console import note, show_json, show_text

if TYPE_CHECKING:
    from penstock.domain.cluster import Cluster
    from penstock.domain.plan import Plan


class Solver(StrEnum):
    """Solvers that can be chosen."""

    GSCIP = "gscip"
    HIGHS = "highs"


ClusterFile = Annotated[Path, typer.Argument(metavar="CLUSTER", help="cluster.yaml")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json")]
ClusterOption = Annotated[Path, typer.Option("--cluster", help="cluster.yaml")]
ProfilesOption = Annotated[Path, typer.Option("--profiles", help="Directory of the profiles.")]
MaxStages = Annotated[int | None, typer.Option(min=1, help="Stages per pipeline, at most.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Largest batch.")]
Margin = Annotated[
    float | None, typer.Option(min=0, max=1, help="Part of the SLO kept for queueing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result for programs.")]


def plan(
    cluster: ClusterFile,
    profiles: ProfilesOption = Path("profiles"),
    out: Annotated[Path, typer.Option(help="Where the plan goes.")] = Path("plan.json"),
    repository: Annotated[
        Path | None, typer.Option(help="Model repository; binds the plan to its blocks.")
    ] = None,
    max_stages: MaxStages = None,
    max_batch: MaxBatch = None,
    margin: Margin = None,
    time_limit: Annotated[float | None, typer.Option(min=0, help="Seconds to search.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the solver.")] = None,
    solver: Annotated[Solver, typer.Option(help="Which solver searches.")] = Solver.GSCIP,
    no_partition: Annotated[
        bool, typer.Option("--no-partition", help="Keep models whole: the baseline.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the pool map (png, svg).")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the plan with the highest throughput that a fleet sustains within the SLOs."""
    from planner.explain import explain as in_words
    from planner.files import load_blocks_digests, load_cluster, load_profiles, save_plan
    from planner.planning import make_plan

    asked = {
        "max_stages": max_stages,
        "max_batch": max_batch,
        "slo_margin": margin,
        "time_limit_s": time_limit,
        "seed": seed,
    }
    fleet = _with_options(load_cluster(cluster), asked)
    found = make_plan(
        fleet,
        load_profiles(profiles, fleet),
        partition=not no_partition,
        blocks_digests=load_blocks_digests(repository, fleet) if repository else {},
        solver=solver.value,
    )
    save_plan(found, out)
    if plot is not None:
        _draw(found, plot)
    if as_json:
        _show_plan(found)
    else:
        show_text(in_words(found))
    note(f"wrote {out}")


def check(
    plan_file: PlanFile,
    cluster: ClusterOption = Path("cluster.yaml"),
    profiles: ProfilesOption = Path("profiles"),
    max_stages: MaxStages = None,
    max_batch: MaxBatch = None,
    margin: Margin = None,
    as_json: AsJson = False,
) -> None:
    """Verify a plan against its inputs, without the code that made it.

    Give the options that the plan was made with, where they differ from the cluster file.
    """
    from penstock.domain.errors import InvalidPlan
    from planner.digests import input_digests
    from planner.files import load_cluster, load_plan, load_profiles
    from planner.verify import find_faults, told

    asked = {"max_stages": max_stages, "max_batch": max_batch, "slo_margin": margin}
    fleet = _with_options(load_cluster(cluster), asked)
    found = load_plan(plan_file)
    measured = load_profiles(profiles, fleet)
    faults = tuple(find_faults(found, fleet, measured, input_digests(fleet, measured)))
    if as_json:
        show_json({"plan": str(plan_file), "verified": not faults, "faults": list(faults)})
    if faults:
        raise InvalidPlan(str(plan_file), "", "a plan that its inputs allow", told(faults))
    if not as_json:
        show_text(f"{plan_file}: verified, {found.solve.objective_rps:.1f} rps per unit of weight")


def explain(plan_file: PlanFile, as_json: AsJson = False) -> None:
    """Say in words what a plan does: stages, latency budget, GPUs, what binds."""
    from planner.explain import explain as in_words
    from planner.explain import facts
    from planner.files import load_plan

    found = load_plan(plan_file)
    if as_json:
        show_json(facts(found))
    else:
        show_text(in_words(found))


def _with_options(cluster: Cluster, asked: dict[str, Any]) -> Cluster:
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(cluster, options=replace(cluster.options, **given))


def _draw(found: Plan, path: Path) -> None:
    from penstock.pictures.poolmap import draw_pool_map

    draw_pool_map(found, path)


def _show_plan(found: Plan) -> None:
    from penstock.formats.plans import write_plan

    show_text(write_plan(found))

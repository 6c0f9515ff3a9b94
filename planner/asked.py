"""What every planning verb may be asked for: options that override the cluster file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from penstock.domain.cluster import Cluster


class Solver(StrEnum):
    """Solvers that can be chosen."""

    HIGHS = "highs"
    GSCIP = "gscip"


class ModeName(StrEnum):
    """Modes of `PlannerOptions`."""

    GENERAL = "general"
    COMPAT = "compat"


class ObjectiveName(StrEnum):
    """Objectives of `PlannerOptions`."""

    MAX_MIN = "max-min"
    GOODPUT = "goodput"
    LEAST_COST = "least-cost"
    FEWEST_GPUS = "fewest-gpus"


class PackingName(StrEnum):
    """Packings of `PlannerOptions`."""

    WHOLE_GPU = "whole-gpu"
    PER_STAGE = "per-stage"


def finite(value: float | None) -> float | None:
    """Refuse infinity and what is not a number: every bound lets the latter pass."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Mode = Annotated[ModeName | None, typer.Option(help="general, or compat: exactly PPipe's problem.")]
Objectives = Annotated[ObjectiveName | None, typer.Option(help="What the best plan is best at.")]
GpuPacking = Annotated[
    PackingName | None, typer.Option(help="Which instances may share a GPU: any, or of one stage.")
]
Rebatch = Annotated[
    bool | None,
    typer.Option("--rebatch/--no-rebatch", help="Let stages of a pipeline differ in batch."),
]
MaxStages = Annotated[int | None, typer.Option(min=1, help="Stages per pipeline, at most.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Largest batch.")]
Margin = Annotated[
    float | None,
    typer.Option(min=0, max=0.999, callback=finite, help="Part of the SLO kept for queueing."),
]
MaxPrice = Annotated[
    float | None,
    typer.Option(min=1e-9, callback=finite, help="Most that the GPUs in use may cost per hour."),
]
SpareGpus = Annotated[int | None, typer.Option(min=0, help="GPUs of every class kept empty.")]
TimeLimit = Annotated[
    float | None, typer.Option(min=0.001, callback=finite, help="Seconds to search.")
]
Gap = Annotated[
    float | None,
    typer.Option(min=0, callback=finite, help="Stop this close to the bound, relative."),
]
Seed = Annotated[int | None, typer.Option(min=0, max=(1 << 31) - 1, help="Seed of the solver.")]
SolverOption = Annotated[Solver, typer.Option(help="Which solver searches.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result for programs.")]


def fleet_with(path: Path, asked: Mapping[str, Any]) -> Cluster:
    """Read a cluster and override its options; `None` leaves an option as it is.

    Compat mode packs per stage unless something else is asked for, which is then refused.

    Raises:
        InvalidCluster: the file is wrong, or contradicts what is asked for.
    """
    from penstock.formats.clusters import check_cluster
    from planner.files import load_cluster
    from planner.variants import with_options

    given = {
        name: each.value if isinstance(each, StrEnum) else each
        for name, each in asked.items()
        if each is not None
    }
    if given.get("mode") == "compat":
        given.setdefault("packing", "per-stage")
    fleet = with_options(load_cluster(path), given)
    check_cluster(fleet, str(path))
    return fleet

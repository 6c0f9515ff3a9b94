"""What planning verbs may be asked for: their common arguments, and options of the planner.

The planner's options stand here once. A verb says by name which of them it takes (`asks`), and gets
what was asked for as one mapping that overrides the cluster file (`fleet_with`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict, get_type_hints

import typer

from penstock.options import drawable, finite

if TYPE_CHECKING:
    from penstock.domain.cluster import Cluster

_VerbFunction: TypeAlias = Callable[..., None]


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


class Asked(TypedDict, total=False):
    """Options of the planner by their names in `PlannerOptions`; None: as the file has it."""

    mode: Annotated[
        ModeName | None, typer.Option(help="general, or compat: exactly PPipe's problem.")
    ]
    objective: Annotated[ObjectiveName | None, typer.Option(help="What the best plan is best at.")]
    packing: Annotated[
        PackingName | None,
        typer.Option(help="Which instances may share a GPU: any, or of one stage."),
    ]
    rebatch: Annotated[
        bool | None,
        typer.Option("--rebatch/--no-rebatch", help="Let stages of a pipeline differ in batch."),
    ]
    max_stages: Annotated[int | None, typer.Option(min=1, help="Stages per pipeline, at most.")]
    max_batch: Annotated[int | None, typer.Option(min=1, help="Largest batch.")]
    slo_margin: Annotated[
        float | None,
        typer.Option(
            "--margin", min=0, max=0.999, callback=finite, help="Part of the SLO kept for queueing."
        ),
    ]
    max_price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--max-price",
            min=1e-9,
            callback=finite,
            help="Most that the GPUs in use may cost per hour.",
        ),
    ]
    spare_gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of every class kept empty.")]
    time_limit_s: Annotated[
        float | None,
        typer.Option("--time-limit", min=0.001, callback=finite, help="Seconds to search."),
    ]
    relative_gap: Annotated[
        float | None,
        typer.Option(
            "--gap", min=0, callback=finite, help="Stop this close to the bound, relative."
        ),
    ]
    seed: Annotated[int | None, typer.Option(min=0, max=(1 << 31) - 1, help="Seed of the solver.")]


ClusterFile = Annotated[Path, typer.Argument(metavar="CLUSTER", help="cluster.yaml")]
ProfilesOption = Annotated[Path, typer.Option("--profiles", help="Directory of the profiles.")]
SolverOption = Annotated[Solver, typer.Option(help="Which solver searches.")]
Picture = Annotated[
    Path | None, typer.Option("--plot", callback=drawable, help="Draw it (png, svg, html).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result for programs.")]


def all_but(*names: str) -> tuple[str, ...]:
    """Return the names of the planner's options without some."""
    return tuple(each for each in Asked.__annotations__ if each not in names)


def asks(*names: str) -> Callable[[_VerbFunction], _VerbFunction]:
    """Give a verb options of the planner, in place of its parameter `asked`.

    The verb gets all their values as that parameter, which has to be keyword-only.

    Args:
        names: of the options, as in `Asked`.
    """

    def given_to(verb: _VerbFunction) -> _VerbFunction:
        @wraps(verb)
        def called(**given: object) -> None:
            asked = {name: given.pop(name) for name in names}
            verb(**given, asked=asked)

        shown = signature(verb, eval_str=True)
        parameters = [
            each
            for own in shown.parameters.values()
            for each in (_parameters(names) if own.name == "asked" else [own])
        ]
        # What typer makes a verb's command line from.
        vars(called)["__signature__"] = shown.replace(parameters=parameters)
        return called

    return given_to


def _parameters(names: tuple[str, ...]) -> list[Parameter]:
    hints = get_type_hints(Asked, include_extras=True)
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=hints[name])
        for name in names
    ]


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

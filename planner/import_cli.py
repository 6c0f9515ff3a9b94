"""The verb import: a published PPipe configuration becomes a project of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.console import note, show_json, show_text
from planner.asked import AsJson

if TYPE_CHECKING:
    from planner.published import PublishedConfiguration, Scheduler


def import_(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Clone of the PPipe artifact.")],
    plan_set: Annotated[
        str | None, typer.Option("--set", help="Folder of plans; needed if there are several.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Name or number; left out: they are listed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where cluster.yaml and profiles go.")] = Path(
        "imported"
    ),
    scheduler: Annotated[str | None, typer.Option(help="Whose options: v4, dart-r or bl.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import a published PPipe configuration as a cluster and its profiles.

    Without --config it lists what there is.
    """
    from planner.published import configuration_names, read_configuration, write_project

    chosen = _plan_set(data, plan_set)
    names = configuration_names(data, chosen)
    if config is None:
        _list(chosen, names, as_json=as_json)
        return
    made_by = _scheduler(scheduler)
    configuration = read_configuration(data, chosen, _named(config, names))
    cluster, profiles = write_project(configuration, out, made_by)
    if as_json:
        show_json(_import_facts(configuration, cluster, profiles))
    else:
        show_text(f"penstock plan {cluster} --profiles {profiles}")
    for each, objective in configuration.objectives.items():
        note(f"published plan {each.value}: {objective:.1f} samples/s per unit of weight")


def _plan_set(data: Path, plan_set: str | None) -> str:
    from penstock.domain.errors import InvalidSettings
    from planner.published import plan_sets

    if plan_set is not None:
        return plan_set
    known = plan_sets(data)
    if len(known) != 1:
        raise InvalidSettings("--set", "", f"one of {', '.join(known)}", "none")
    return known[0]


def _scheduler(name: str | None) -> Scheduler | None:
    from penstock.domain.errors import UnknownName
    from planner.published import Scheduler as Schedulers

    if name is None:
        return None
    try:
        return Schedulers(name)
    except ValueError:
        raise UnknownName("scheduler", name, list(Schedulers)) from None


def _named(config: str, names: Sequence[str]) -> str:
    """Return the configuration of that name or number."""
    from penstock.domain.errors import InvalidSettings

    if config in names or not config.isdecimal():
        return config
    if int(config) >= len(names):
        raise InvalidSettings("--config", "", f"a number from 0 to {len(names) - 1}", config)
    return names[int(config)]


def _list(plan_set: str, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        show_json({"set": plan_set, "configurations": list(names)})
    else:
        show_text("\n".join(f"{number:3}  {name}" for number, name in enumerate(names)))
        note(f"{len(names)} configurations in {plan_set}; --config takes a number or a name")


def _import_facts(
    configuration: PublishedConfiguration, cluster: Path, profiles: Path
) -> dict[str, Any]:
    return {
        "configuration": configuration.name,
        "cluster": str(cluster),
        "profiles": str(profiles),
        "published_rps": {
            each.value: objective for each, objective in configuration.objectives.items()
        },
    }

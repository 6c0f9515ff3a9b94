"""Writes an imported configuration as a project that ``penstock plan`` runs on."""

from __future__ import annotations

from pathlib import Path

from penstock.domain.errors import UnknownName
from penstock.formats.clusters import write_cluster
from penstock.formats.layout import CLUSTER_FILE, profile_paths
from penstock.formats.profiles import write_profile
from planner.published.values import PublishedConfiguration, PublishedPlan, Scheduler

PROFILES_FOLDER = "profiles"


def write_project(
    configuration: PublishedConfiguration, root: Path, scheduler: Scheduler | None = None
) -> tuple[Path, Path]:
    """Write ``cluster.yaml`` and the profiles under `root`.

    Args:
        configuration: what was imported.
        root: made if it is not there; files in it are overwritten.
        scheduler: whose options to write; those of the leading plan if left out.

    Returns:
        The cluster file and the folder of the profiles.

    Raises:
        UnknownName: the configuration has no plan of that scheduler.
        OSError: something could not be written.
    """
    plan = configuration.leading if scheduler is None else _plan(configuration, scheduler)
    cluster, profiles = root / CLUSTER_FILE, root / PROFILES_FOLDER
    root.mkdir(parents=True, exist_ok=True)
    cluster.write_text(write_cluster(plan.cluster), encoding="utf-8")
    for (model, gpu_class), profile in configuration.profiles.items():
        paths = profile_paths(profiles, model, gpu_class)
        for path, text in zip(paths, write_profile(profile), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return cluster, profiles


def _plan(configuration: PublishedConfiguration, scheduler: Scheduler) -> PublishedPlan:
    try:
        return configuration.plans[scheduler]
    except KeyError:
        raise UnknownName("scheduler", scheduler.value, configuration.plans) from None

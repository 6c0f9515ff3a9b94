"""Tells of profiles that were measured otherwise than their model is to be served.

Knows what files say. A profile that does not say how it was computed is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.domain.cluster import Cluster, ServedModel
from penstock.domain.execution import Computed
from penstock.domain.ids import GpuClassName
from penstock.formats.layout import profile_paths
from penstock.options import profile_arguments
from planner.inputs import Profiles


def computed_otherwise(cluster: Cluster, profiles: Profiles, root: Path) -> Iterator[str]:
    """Yield one line for each model with profiles that say something else than `execution` asks.

    Args:
        cluster: as it is planned for.
        profiles: that were read from below `root`.
        root: of the profiles.
    """
    for model in cluster.models:
        others = {
            each.name: computed
            for each in cluster.gpu_classes
            if (computed := profiles[model.name, each.name].provenance.computed) is not None
            and not computed.is_as_asked(model.execution)
        }
        if others:
            yield _told(model, others, root)


def _told(model: ServedModel, others: dict[GpuClassName, Computed], root: Path) -> str:
    measured = ", ".join(
        f"{profile_paths(root, model.name, name)[0]} ({computed.words})"
        for name, computed in others.items()
    )
    name, first = next(iter(others.items()))
    asked = model.execution.on(first.executor).words
    command = [
        *("penstock profile", model.name, "--gpu-class", name, "--device", first.executor),
        *profile_arguments(model.execution),
    ]
    return (
        f"{model.name} is to be served as {asked}, but was measured otherwise: {measured}; "
        f"figures will be off. Measure again: {' '.join(command)}"
    )

"""Every fault of a plan, in an order in which none repeats an earlier one.

Where a plan is broken in a way that makes further arithmetic meaningless, the rest is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from penstock.domain.cluster import Cluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Digest, Plan
from penstock.domain.profiles import LatencyProfile
from planner.verify.gpus import (
    count_faults,
    gpus_filled,
    gpus_used,
    lay_out,
    layout_faults,
    price_faults,
)
from planner.verify.header import class_faults, digest_faults, option_faults, served_faults
from planner.verify.loads import capacity_faults
from planner.verify.objective import objective_faults
from planner.verify.paths import path_faults, throughput_faults
from planner.verify.shapes import id_faults, shape_faults
from planner.verify.stages import stage_faults
from planner.verify.subject import Subject


def told(faults: Sequence[str]) -> str:
    """Return the first fault and how many more there are, for one line."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"


def find_faults(
    plan: Plan,
    cluster: Cluster,
    profiles: Mapping[tuple[ModelName, GpuClassName], LatencyProfile],
    digests: Sequence[Digest] | None = None,
) -> Iterator[str]:
    """Yield every fault of a plan, one line each.

    Args:
        plan: what is checked.
        cluster: the fleet and the models it claims to be for.
        profiles: by model and GPU class.
        digests: of those inputs; None if they are not to be compared.
    """
    if digests is not None:
        yield from digest_faults(plan, digests)
    header = (
        *class_faults(plan, cluster),
        *served_faults(plan, cluster),
        *option_faults(plan, cluster.options),
    )
    yield from header
    if header:
        return  # the rest would only repeat it
    broken = list(id_faults(plan))
    yield from broken
    for subject in _subjects(plan, cluster, profiles):
        shape = list(shape_faults(subject))
        broken += shape
        yield from shape or _model_faults(subject)
    if not broken:
        yield from _fleet_faults(plan, cluster)


def _subjects(
    plan: Plan,
    cluster: Cluster,
    profiles: Mapping[tuple[ModelName, GpuClassName], LatencyProfile],
) -> list[Subject]:
    return [
        Subject(
            plan=model,
            served=served,
            options=cluster.options,
            formulation=plan.solve.formulation,
            classes={each.name: each for each in cluster.gpu_classes},
            profiles={
                name: each for (owner, name), each in profiles.items() if owner == model.model
            },
        )
        for model, served in zip(plan.models, cluster.models, strict=True)
    ]


def _model_faults(subject: Subject) -> Iterator[str]:
    yield from stage_faults(subject)
    yield from capacity_faults(subject)
    yield from path_faults(subject)
    yield from throughput_faults(subject)


def _fleet_faults(plan: Plan, cluster: Cluster) -> Iterator[str]:
    """Yield what only all models together show: GPUs, price, objective."""
    crowded = list(count_faults(gpus_filled(plan), cluster))
    yield from crowded
    if crowded:
        return  # to lay out that many instances could take forever
    slots = lay_out(plan, cluster.options)
    yield from layout_faults(plan, cluster.options, slots)
    used = gpus_used(plan, cluster.options, slots)
    yield from count_faults(used, cluster)
    yield from price_faults(used, cluster)
    yield from objective_faults(plan, cluster, used)

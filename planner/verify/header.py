"""Is the plan for this cluster at all: same inputs, GPU classes, models, options?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions
from penstock.domain.plan import Digest, Plan, PlannedClass


def digest_faults(plan: Plan, digests: Sequence[Digest]) -> Iterator[str]:
    """Yield the inputs that are not those the plan was made from."""
    planned = {each.name: each.sha256 for each in plan.inputs}
    for each in digests:
        if planned.get(each.name) != each.sha256:
            yield f"input {each.name}: has changed since the plan was made"


def class_faults(plan: Plan, cluster: Cluster) -> Iterator[str]:
    """Yield the GPU classes that are not as they were planned with."""
    planned = {each.name: _facts(each) for each in plan.gpu_classes}
    actual = {each.name: _facts(each) for each in cluster.gpu_classes}
    if len(planned) != len(plan.gpu_classes):
        yield "gpu_classes: two have the same name"
    for name in {**planned, **actual}:
        if planned.get(name) != actual.get(name):
            yield f"GPU class {name}: planned as {planned.get(name)}, is {actual.get(name)}"


def _facts(each: GpuClass | PlannedClass) -> tuple[float | None, ...]:
    return (
        each.count,
        each.memory_bytes,
        each.gpus_per_server,
        each.network_gbps,
        each.price_per_hour,
    )


def served_faults(plan: Plan, cluster: Cluster) -> Iterator[str]:
    """Yield if the plan serves other models, or the same with another SLO, weight or execution."""
    planned = [each.model for each in plan.models]
    asked = [each.name for each in cluster.models]
    if planned != asked:
        yield f"models: planned {planned}, asked {asked}"
        return
    for model, served in zip(plan.models, cluster.models, strict=True):
        if (model.slo_us, model.weight) != (served.slo_us, served.weight):
            yield f"model {model.model}: its SLO or weight is not that of the cluster"
        if model.execution != served.execution:
            yield f"model {model.model}: its execution is not that of the cluster"


def option_faults(plan: Plan, options: PlannerOptions) -> Iterator[str]:
    """Yield the options that the plan was not made with, as far as it tells."""
    packing = "per-stage" if options.mode == "compat" else options.packing
    pairs: tuple[tuple[str, object, object], ...] = (
        ("hop_overhead_us", plan.hop_overhead_us, options.hop_overhead_us),
        ("packing", plan.packing, packing),
        ("objective", plan.solve.objective, options.objective),
    )
    for name, planned, expected in pairs:
        if planned != expected:
            yield f"{name}: planned with {planned}, is {expected}"
    formulation = plan.solve.formulation
    if formulation in {"general", "compat"} and formulation != options.mode:
        yield f"formulation: planned as {formulation}, the mode is {options.mode}"

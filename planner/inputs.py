"""What is planned with: a cluster and, per model and GPU class, a profile; checked for unity.

Knows nothing of files and nothing of the solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions, ServedModel
from penstock.domain.errors import InvalidCluster, InvalidProfile
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile
from penstock.domain.units import Bytes, Micros
from penstock.latency.table import StageLatency

Profiles: TypeAlias = Mapping[tuple[ModelName, GpuClassName], LatencyProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """One model as the planner sees it.

    Attributes:
        cut_bytes: bytes of one sample crossing the cut after block i.
        weight_bytes, activation_bytes: per block.
        latencies: stage latencies by GPU class.
        workspace_bytes: device memory of an instance beside weights and activations.
        margin_us: part of the SLO kept free for queueing.
        max_stages: the model's own bound or the planner's, whichever is lower.
        blocks_digest: of the blocks that were profiled; empty if unknown.
    """

    served: ServedModel
    blocks: int
    cut_bytes: tuple[Bytes, ...]
    weight_bytes: tuple[Bytes, ...]
    activation_bytes: tuple[Bytes, ...]
    latencies: Mapping[GpuClassName, StageLatency]
    workspace_bytes: Bytes
    margin_us: Micros
    max_stages: int
    blocks_digest: str

    @property
    def budget_us(self) -> Micros:
        """What a path may take, margin not counted."""
        budget_us = self.served.slo_us - self.margin_us
        cap_us = self.served.max_latency_us
        return budget_us if cap_us is None else min(budget_us, cap_us)

    def stage_memory_bytes(self, first: int, end: int, batch: int) -> Bytes:
        """Return what blocks [first, end) need: all weights, the largest activations, workspace."""
        weights = sum(self.weight_bytes[first:end])
        return weights + batch * max(self.activation_bytes[first:end]) + self.workspace_bytes

    def may_use(self, gpu_class: GpuClassName) -> bool:
        """Tell whether the model may run on a class."""
        served = self.served
        pinned = not served.gpu_classes or gpu_class in served.gpu_classes
        return pinned and gpu_class not in served.forbidden_gpu_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerInputs:
    """Everything one planning run looks at."""

    gpu_classes: tuple[GpuClass, ...]
    models: tuple[ModelInputs, ...]
    options: PlannerOptions


def margin_us(slo_us: Micros, slo_margin: float) -> Micros:
    """Return the part of the SLO that is kept free for queueing."""
    return round(slo_us * slo_margin)


def _margin_us(served: ServedModel, options: PlannerOptions) -> Micros:
    own_us = served.margin_us
    return margin_us(served.slo_us, options.slo_margin) if own_us is None else own_us


def gather_inputs(cluster: Cluster, profiles: Profiles) -> PlannerInputs:
    """Join a cluster with its profiles.

    Raises:
        InvalidCluster: no model or no GPU class to plan for.
        InvalidProfile: a profile is missing, or two profiles of one model disagree on its
            blocks.
    """
    if not cluster.models:
        raise InvalidCluster("cluster", "models", "at least one model", "none")
    if not cluster.gpu_classes:
        raise InvalidCluster("cluster", "gpu_classes", "at least one GPU class", "none")
    models = tuple(_model_inputs(model, cluster, profiles) for model in cluster.models)
    return PlannerInputs(gpu_classes=cluster.gpu_classes, models=models, options=cluster.options)


def _model_inputs(served: ServedModel, cluster: Cluster, profiles: Profiles) -> ModelInputs:
    options = cluster.options
    found = [_profile(served.name, each.name, profiles) for each in cluster.gpu_classes]
    first = found[0]
    for other in found[1:]:
        _check_same_blocks(first, other)
    return ModelInputs(
        served=served,
        blocks=first.blocks,
        cut_bytes=first.cut_bytes,
        weight_bytes=first.weight_bytes,
        activation_bytes=first.activation_bytes,
        latencies={profile.gpu_class: _latencies(profile) for profile in found},
        workspace_bytes=options.workspace_bytes,
        margin_us=_margin_us(served, options),
        max_stages=min(options.max_stages, served.max_stages or options.max_stages),
        blocks_digest=next((each.blocks_digest for each in found if each.blocks_digest), ""),
    )


def _profile(model: ModelName, gpu_class: GpuClassName, profiles: Profiles) -> LatencyProfile:
    try:
        return profiles[model, gpu_class]
    except KeyError:
        place = f"{model} on {gpu_class}"
        raise InvalidProfile("profiles", place, "a profile", "none") from None


def _latencies(profile: LatencyProfile) -> StageLatency:
    table = StageLatency(profile)
    for share in table.shares:
        for batch in table.batches(share):
            table.stage_latency_us(0, profile.blocks, batch, share)  # raises on a gap
    if Fraction(1) not in table.shares:
        source = f"profile of {profile.model} on {profile.gpu_class}"
        raise InvalidProfile(source, "share", "rows for the whole GPU (1/1)", "none")
    return table


def _check_same_blocks(first: LatencyProfile, other: LatencyProfile) -> None:
    source = f"profile of {other.model} on {other.gpu_class}"
    expected = f"the same as on {first.gpu_class}"
    pairs: tuple[tuple[str, object, object], ...] = (
        ("blocks", first.blocks, other.blocks),
        ("cut_bytes", first.cut_bytes, other.cut_bytes),
        ("weight_bytes", first.weight_bytes, other.weight_bytes),
        ("activation_bytes", first.activation_bytes, other.activation_bytes),
    )
    for name, left, right in pairs:
        if left != right:
            raise InvalidProfile(source, name, f"{expected} ({left})", str(right))
    digests = {first.blocks_digest, other.blocks_digest} - {""}
    if len(digests) > 1:
        raise InvalidProfile(source, "blocks_digest", expected, other.blocks_digest)

"""Small fleets and profiles for the planner's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.units import BYTES_PER_GIB
from planner.inputs import Profiles

FAST, SLOW, DIGITS = GpuClassName("fast"), GpuClassName("slow"), ModelName("digits")
PROVENANCE = Provenance(kind="imported", device="none", driver="", torch="", date="2025-01-01")

Table = Mapping[tuple[int, Fraction], Sequence[int]]  # (batch, share) → latency of each block


def gpu_class(name: str, count: int = 1, **fields: object) -> GpuClass:
    defaults: dict[str, Any] = {"memory_bytes": 16 * BYTES_PER_GIB, "network_gbps": 10.0}
    return GpuClass(name=GpuClassName(name), count=count, **{**defaults, **fields})


def served(
    name: str = "digits", slo_ms: float = 100, weight: float = 1.0, rate_rps: float | None = None
) -> ServedModel:
    return ServedModel(
        name=ModelName(name),
        source="m:f",
        slo_us=round(slo_ms * 1000),
        weight=weight,
        rate_rps=rate_rps,
    )


def profile(
    model: str,
    gpu_class_name: str,
    table: Table,
    cut_bytes: Sequence[int] | None = None,
    **fields: object,
) -> LatencyProfile:
    blocks = len(next(iter(table.values())))
    defaults: dict[str, Any] = {
        "weight_bytes": (1 << 20,) * blocks,
        "activation_bytes": (1 << 16,) * blocks,
    }
    rows = tuple(
        ProfileRow(
            block=block,
            batch=batch,
            share=share,
            latency_mean_us=latency,
            latency_p99_us=latency,
            samples=10,
        )
        for (batch, share), latencies in table.items()
        for block, latency in enumerate(latencies)
    )
    return LatencyProfile(
        model=ModelName(model),
        gpu_class=GpuClassName(gpu_class_name),
        blocks=blocks,
        rows=rows,
        cut_bytes=tuple(cut_bytes if cut_bytes is not None else (100_000,) * (blocks - 1)),
        provenance=PROVENANCE,
        **{**defaults, **fields},
    )


def whole(*by_batch: Sequence[int]) -> Table:
    """Return a table of whole GPUs with batches 1, 2, …."""
    return {(batch, Fraction(1)): each for batch, each in enumerate(by_batch, start=1)}


def mixed_fleet(slo_ms: float = 60, **options: object) -> tuple[Cluster, Profiles]:
    """One fast and three slow GPUs; the slow class alone cannot meet the SLO.

    Four blocks of 4 ms on fast; the last two are hardly slower on slow, the first two are.
    """
    defaults: dict[str, Any] = {"max_batch": 2, "hop_overhead_us": 500, "slo_margin": 0.4}
    cluster = Cluster(
        gpu_classes=(gpu_class("fast", 1, max_share_denominator=2), gpu_class("slow", 3)),
        models=(served(slo_ms=slo_ms),),
        options=PlannerOptions(**{**defaults, **options}),
    )
    half = {(1, Fraction(1, 2)): [7000] * 4, (2, Fraction(1, 2)): [10000] * 4}
    fast = {**whole([4000] * 4, [6000] * 4), **half}
    slow = whole([20000, 20000, 6000, 6000], [36000, 36000, 9000, 9000])
    profiles = {
        (DIGITS, FAST): profile("digits", "fast", fast),
        (DIGITS, SLOW): profile("digits", "slow", slow),
    }
    return cluster, profiles

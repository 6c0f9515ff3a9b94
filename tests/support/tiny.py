"""Fleets and models so small that brute force can plan them, drawn so that everything may bind.

One generator of random numbers makes a whole case. Numbers are drawn relative to each other (the
SLO to the latencies, rates and prices to what the fleet can do), so that most cases have a plan
and few are trivial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random
from types import MappingProxyType
from typing import Any, TypeAlias

from penstock.domain.cluster import Cluster, GpuClass, Objective, PlannerOptions, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile, ProfileRow, Provenance
from penstock.domain.units import Bytes, Micros

Form: TypeAlias = Mapping[str, Any]  # mode, packing and re-batching, as in `PlannerOptions`
Latencies: TypeAlias = dict[tuple[int, int], list[Micros]]  # (m, batch) → of each block

GENERAL: Form = MappingProxyType({"mode": "general", "packing": "whole-gpu"})
PER_STAGE: Form = MappingProxyType({"mode": "general", "packing": "per-stage"})
COMPAT: Form = MappingProxyType({"mode": "compat", "packing": "per-stage"})
REBATCH: Form = MappingProxyType({**GENERAL, "rebatch": True})
REBATCH_PER_STAGE: Form = MappingProxyType({**PER_STAGE, "rebatch": True})
FORMS = (GENERAL, PER_STAGE, REBATCH, REBATCH_PER_STAGE, COMPAT)

_MIB = 1 << 20
_COUNTS = ((1, 1), (1, 2), (2, 1), (1, 1, 1), (1, 3), (2, 2), (1, 1, 2), (2, 1, 1), (2,), (1,))
_PROVENANCE = Provenance(kind="imported", device="none", driver="", torch="", date="2025-01-01")


@dataclass(frozen=True)
class Case:
    """What to plan.

    Attributes:
        rates: samples/s at which the batches of each model fill.
    """

    cluster: Cluster
    profiles: Mapping[tuple[ModelName, GpuClassName], LatencyProfile]
    rates: Mapping[ModelName, float]

    def changed(self, **options: Any) -> Case:
        """Return the case with other planner options."""
        cluster = replace(self.cluster, options=replace(self.cluster.options, **options))
        return replace(self, cluster=cluster)


@dataclass(frozen=True)
class _Model:
    """One model as drawn; latencies by GPU class."""

    name: ModelName
    weights: tuple[Bytes, ...]
    cuts: tuple[Bytes, ...]
    latencies: tuple[Latencies, ...]

    @property
    def quickest_us(self) -> Micros:
        """Every block where it runs best, one sample at a time."""
        alone = [min(table.items())[1] for table in self.latencies]
        return sum(map(min, zip(*alone, strict=True)))


def draw_case(rng: Random, objective: Objective, form: Form) -> Case:
    """Draw a fleet of one to four GPUs and one or two models of up to three blocks."""
    mixed = bool(form.get("rebatch"))
    fleet = _fleet(rng, most_gpus=3 if mixed else 4, most_shares=2 if mixed else 3)
    if mixed and rng.random() < 0.4:
        models = [_model(rng, 0, fleet, 2, (1, 2, 4))]
    else:
        models = [
            _model(rng, number, fleet, rng.choice((1, 2, 2, 3, 3)), (1, 2))
            for number in range(rng.randint(1, 2))
        ]
    if rng.random() < 0.25:
        fleet = _with_little_memory(rng, fleet, models)
    options = _options(rng, objective, form, fleet)
    return Case(
        Cluster(
            gpu_classes=fleet,
            models=tuple(_asked(rng, each, options, fleet, len(models)) for each in models),
            options=options,
        ),
        {
            (model.name, gpu_class.name): _profile(model, gpu_class.name, table)
            for model in models
            for gpu_class, table in zip(fleet, model.latencies, strict=True)
        },
        dict.fromkeys((each.name for each in models), rng.choice((100.0, 1000.0, float("inf")))),
    )


def _fleet(rng: Random, most_gpus: int, most_shares: int) -> tuple[GpuClass, ...]:
    """Draw GPU classes; the first may be divisible."""
    counts = rng.choice([each for each in _COUNTS if sum(each) <= most_gpus])
    shares = rng.choice((1, 2, 2, 3, 3)[: 2 * most_shares - 1])
    return tuple(
        GpuClass(
            name=GpuClassName(f"class{number}"),
            count=count,
            memory_bytes=1 << 40,
            gpus_per_server=rng.randint(1, 2),
            network_gbps=rng.choice((0.5, 1.0, 2.0, 10.0)),
            price_per_hour=rng.choice((0.7, 1.0, 2.5)),
            max_share_denominator=1 if number else shares,
        )
        for number, count in enumerate(counts)
    )


def _model(
    rng: Random, number: int, fleet: Sequence[GpuClass], blocks: int, batches: Sequence[int]
) -> _Model:
    """Draw a model whose blocks run well on some classes and badly on others."""
    return _Model(
        name=ModelName(f"model{number}"),
        weights=tuple(rng.choice((1, 2, 6)) * _MIB for _ in range(blocks)),
        cuts=tuple(rng.choice((0, 999, 1 << 15, 1 << 17, 1 << 18)) for _ in range(blocks - 1)),
        latencies=tuple(
            _latencies(rng, blocks, each.max_share_denominator, batches) for each in fleet
        ),
    )


def _latencies(rng: Random, blocks: int, shares: int, batches: Sequence[int]) -> Latencies:
    """Draw latencies that grow with the batch and with m, mostly; some cells are missing."""
    alone = [rng.randint(500, 1500) * rng.choice((1, 1, 3, 8)) for _ in range(blocks)]
    dearer = rng.choice((0.1, 0.5, 1.6))  # of one more sample in a batch: batching may not pay
    found: Latencies = {}
    for m in range(1, shares + 1):
        missing = rng.choice(batches) if rng.random() < 0.35 else 0
        for batch in batches:
            if batch != missing:
                slower = rng.uniform(1, m) * (1 + dearer * (batch - 1))
                found[m, batch] = [
                    round(us * slower * rng.choice((0.6, 1.0, 1.0, 1.1))) for us in alone
                ]
    return found


def _with_little_memory(
    rng: Random, fleet: Sequence[GpuClass], models: Sequence[_Model]
) -> tuple[GpuClass, ...]:
    """Return the fleet with memory for some stages but not for all."""
    least = max(max(each.weights) for each in models) + _MIB
    most = max(sum(each.weights) for each in models) + 4 * _MIB
    return tuple(replace(each, memory_bytes=rng.randint(least, most)) for each in fleet)


def _options(
    rng: Random, objective: Objective, form: Form, fleet: Sequence[GpuClass]
) -> PlannerOptions:
    price = sum(each.count * (each.price_per_hour or 0.0) for each in fleet)
    return PlannerOptions(
        objective=objective,
        max_stages=rng.choice((1, 2, 2, 3, 3, 3)),
        max_batch=rng.choice((1, 4, 4, 4)),
        slo_margin=rng.choice((0.0, 0.1, 0.4)),
        batch_build_factor=rng.choice((0.0, 1.3)),
        hop_overhead_us=rng.choice((0, 100)),
        workspace_bytes=rng.choice((0, 0, _MIB)),
        spare_gpus=int(rng.random() < 0.1),
        max_price_per_hour=price * rng.uniform(0.4, 1.0) if rng.random() < 0.2 else None,
        relative_gap=5e-7,  # solvers stop at 1e-6, whatever the value
        **form,
    )


def _asked(
    rng: Random, model: _Model, options: PlannerOptions, fleet: Sequence[GpuClass], models: int
) -> ServedModel:
    """Draw SLO, weight, rate and bounds of one model."""
    rated = options.objective != "max-min"
    most = 0.1 if options.objective == "goodput" else 0.25
    gpus = sum(each.count for each in fleet)
    carried_rps = gpus * 1e6 / model.quickest_us / models
    rate_rps = round(carried_rps * rng.uniform(0.02, most), 3)
    slo_us = model.quickest_us * rng.choice((1.3, 1.8, 2.5, 5.0, 10.0)) / (1 - options.slo_margin)
    served = ServedModel(
        name=model.name,
        source="",
        slo_us=round(slo_us) + 300,
        weight=rng.choice((0.5, 1.0, 2.0)),
        rate_rps=rate_rps if rated or rng.random() < 0.2 else None,
    )
    own = (
        {"gpu_classes": (rng.choice(fleet).name,)},
        {"forbidden_gpu_classes": (rng.choice(fleet).name,)},
        {"max_stages": rng.randint(1, 2)},
        {"margin_us": rng.randint(0, 1000)},
        {"max_latency_us": served.slo_us // 2},
    )
    return replace(served, **rng.choice(own)) if rng.random() < 0.2 else served


def _profile(model: _Model, gpu_class: GpuClassName, table: Latencies) -> LatencyProfile:
    rows = tuple(
        ProfileRow(
            block=block,
            batch=batch,
            share=Fraction(1, m),
            latency_mean_us=latency,
            latency_p99_us=latency,
            samples=1,
        )
        for (m, batch), latencies in table.items()
        for block, latency in enumerate(latencies)
    )
    return LatencyProfile(
        model=model.name,
        gpu_class=gpu_class,
        blocks=len(model.weights),
        rows=rows,
        cut_bytes=model.cuts,
        weight_bytes=model.weights,
        activation_bytes=(_MIB,) * len(model.weights),
        provenance=_PROVENANCE,
    )

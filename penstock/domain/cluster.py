"""The fleet and what it has to serve: GPU classes, models with SLOs, planner options.

Knows nothing of files: `penstock.formats.clusters` reads ``cluster.yaml`` into these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import Bytes, Micros

PlannerMode: TypeAlias = Literal["general", "compat"]
Objective: TypeAlias = Literal["max-min", "goodput", "least-cost", "fewest-gpus"]
Packing: TypeAlias = Literal["whole-gpu", "per-stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRates:
    """What a device can do at best; the roofline estimate divides by these.

    Attributes:
        peak_tflops: dense arithmetic peak in 10^12 operations per second at the precision served.
        memory_gbytes_per_s: device memory bandwidth in 10^9 bytes per second.
        launch_us: fixed cost of one kernel launch.
    """

    peak_tflops: float
    memory_gbytes_per_s: float
    launch_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuClass:
    """A kind of GPU and how many of it there are.

    Attributes:
        gpus_per_server: how many GPUs share one network card.
        network_gbps: bandwidth of that card, each way, in gigabits per second.
        max_share_denominator: a GPU may be cut into 1..this many equal shares.
        rates: set for a class that is estimated by datasheet or by hand; None if unknown.
    """

    name: GpuClassName
    count: int
    memory_bytes: Bytes
    gpus_per_server: int = 1
    network_gbps: float
    price_per_hour: float | None = None
    max_share_denominator: int = 1
    rates: DeviceRates | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model the fleet serves.

    Attributes:
        source: ``module:function`` that builds it, or a path in the model repository.
        weight: its part of the traffic; throughputs are planned in these proportions.
        rate_rps: requests per second it must sustain; None: as much as the fleet gives.
        gpu_classes: the only classes it may run on; empty: any.
        forbidden_gpu_classes: classes it must not run on.
        max_stages: its own bound, below that of the options; None: theirs.
        max_latency_us: most that a pipeline may take, margin not counted; None: no such bound.
        margin_us: part of the SLO kept free for queueing; None: the options' fraction of it.
        execution: how its stages are computed.
    """

    name: ModelName
    source: str
    slo_us: Micros
    weight: float = 1.0
    rate_rps: float | None = None
    gpu_classes: tuple[GpuClassName, ...] = ()
    forbidden_gpu_classes: tuple[GpuClassName, ...] = ()
    max_stages: int | None = None
    max_latency_us: Micros | None = None
    margin_us: Micros | None = None
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerOptions:
    """What is sought, what bounds the search, and how much of the SLO is held back.

    Attributes:
        mode: ``general``, or ``compat``: exactly the problem PPipe states, with pools private to
            a pipeline, one pipeline per ordered tuple of GPU classes, and per-stage packing.
        objective: ``max-min`` weighted throughput; or, where every model asks for a rate, the
            greatest total ``goodput``, the ``least-cost`` per hour or the ``fewest-gpus``.
        packing: ``whole-gpu``: any instances of a class may share a GPU; ``per-stage``: only those
            of one model and stage position, as PPipe rounds.
        rebatch: stages of one pipeline may differ in batch size (by whole multiples).
        workspace_bytes: device memory each instance needs beside weights and activations.
        max_price_per_hour: most that the GPUs in use may cost together; None: no bound.
        spare_gpus: GPUs of every class kept empty, to stand in for lost ones.
        slo_margin: fraction of the SLO kept free for queueing (PPipe: 0.4).
        batch_build_factor: allowance for gathering a batch, as a multiple of its mean
            gathering time (PPipe: 1.3).
        hop_overhead_us: fixed cost of each hand-over of a batch, frontend included.
        relative_gap: the solver may stop this close to its bound.
    """

    mode: PlannerMode = "general"
    objective: Objective = "max-min"
    packing: Packing = "whole-gpu"
    rebatch: bool = False
    max_stages: int = 2
    max_batch: int = 8
    slo_margin: float = 0.4
    batch_build_factor: float = 1.3
    hop_overhead_us: Micros = 0
    workspace_bytes: Bytes = 0
    max_price_per_hour: float | None = None
    spare_gpus: int = 0
    time_limit_s: float = 60.0
    relative_gap: float = 1e-4
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A fleet and the models it serves. Names are unique within each tuple."""

    gpu_classes: tuple[GpuClass, ...]
    models: tuple[ServedModel, ...]
    options: PlannerOptions = field(default_factory=PlannerOptions)

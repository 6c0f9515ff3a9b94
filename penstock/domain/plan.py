"""A plan: pools of instances, and pipelines that lead through them.

A plan binds to GPU classes, never to devices; placement happens at launch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from penstock.domain.cluster import Objective, Packing
from penstock.domain.execution import ExecutionOptions
from penstock.domain.ids import GpuClassName, ModelName, PipelineId, PoolId
from penstock.domain.units import Bytes, Micros

ObjectiveUnit: TypeAlias = Literal["rps", "per-hour", "gpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Interchangeable instances of one stage: blocks [first_block, end_block) of one model.

    Attributes:
        position: place of the stage in its pipelines, from 0.
        share: part of one GPU each instance holds.
        batch: planned batch size.
        latency_us_by_batch: latency at batch 1, 2, … `batch`.
        memory_bytes: weights, activations and workspace of one instance at the planned batch.
    """

    id: PoolId
    position: int
    first_block: int
    end_block: int
    gpu_class: GpuClassName
    share: Fraction
    batch: int
    instances: int
    latency_us_by_batch: tuple[Micros, ...]
    memory_bytes: Bytes

    @property
    def latency_us(self) -> Micros:
        """Latency at the planned batch."""
        return self.latency_us_by_batch[self.batch - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What crosses the cut between two stages, for one sample."""

    bytes_per_sample: Bytes
    us_per_sample: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """An ordered list of pools that covers the model's blocks once.

    Pools may differ in batch: then each batch divides the largest before it, or is a multiple of
    it, and samples are gathered or split between the stages.

    Attributes:
        pools: ids, in order of position.
        transfers: one per cut; ``len(pools) - 1``.
        throughput_rps: planned flow along this pipeline, samples per second.
        batch_build_us: time allowed for gathering a batch.
        latency_us: stages, transfers, hop overheads and batch building; without the margin.
    """

    id: PipelineId
    pools: tuple[PoolId, ...]
    transfers: tuple[Transfer, ...]
    throughput_rps: float
    batch_build_us: Micros
    latency_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The pools and pipelines of one model.

    Attributes:
        blocks: number of blocks of the model.
        margin_us: part of the SLO kept free for queueing.
        blocks_digest: SHA-256 of the ``blocks.json`` the workers must hold; may be empty for
            plans that are only simulated.
        execution: how the workers compute its stages.
    """

    model: ModelName
    blocks: int
    slo_us: Micros
    weight: float
    margin_us: Micros
    throughput_rps: float
    pools: tuple[Pool, ...]
    pipelines: tuple[Pipeline, ...]
    blocks_digest: str = ""
    execution: ExecutionOptions = field(default_factory=ExecutionOptions)

    def pool(self, pool_id: PoolId) -> Pool:
        """Return the pool of that id.

        Raises:
            KeyError: no pool has it.
        """
        for pool in self.pools:
            if pool.id == pool_id:
                return pool
        raise KeyError(pool_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClass:
    """What a plan has to know of a GPU class."""

    name: GpuClassName
    count: int
    memory_bytes: Bytes
    gpus_per_server: int
    network_gbps: float
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvePhase:
    """How long one part of planning took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveReport:
    """How the plan was found.

    Attributes:
        formulation: ``general``, ``compat``, ``no-partition`` or ``dart-r``.
        status: ``optimal`` (to the gap asked for) or ``feasible`` (stopped before).
        objective_rps: least throughput divided by weight over the models, whatever was sought.
        value: of the objective sought, in `unit`.
        bound: proven: no plan has a better value.
        unit: ``rps``, ``per-hour`` (price) or ``gpus``.
        gap: distance of value and bound, divided by the greater of the two.
        phases: what the seconds went into.
    """

    solver: str
    formulation: str
    objective: Objective = "max-min"
    status: str
    objective_rps: float
    value: float
    bound: float
    unit: ObjectiveUnit = "rps"
    gap: float
    seconds: float
    phases: tuple[SolvePhase, ...] = ()
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """SHA-256 of one input of the plan."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each part of the fleet runs, and what that sustains.

    Attributes:
        packing: which instances may share a GPU.
    """

    gpu_classes: tuple[PlannedClass, ...]
    models: tuple[ModelPlan, ...]
    hop_overhead_us: Micros
    packing: Packing = "per-stage"
    solve: SolveReport
    inputs: tuple[Digest, ...] = ()

    def model(self, name: ModelName) -> ModelPlan:
        """Return the plan of one model.

        Raises:
            KeyError: the plan does not serve it.
        """
        for model in self.models:
            if model.model == name:
                return model
        raise KeyError(name)

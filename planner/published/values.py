"""What a published configuration says: fleet, models, profiles, and the plan of each scheduler."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from penstock.domain.cluster import Cluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import Micros
from planner.inputs import Profiles


class Scheduler(StrEnum):
    """Who made a published plan; the value is the suffix of its file."""

    PPIPE = "v4"
    DART_R = "dart-r"
    NO_PARTITION = "bl"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedStage:
    """One stage of a published pipeline.

    Attributes:
        m: denominator of the share.
        instances: of that share; a GPU holds m.
        latency_us: of one batch, as the plan says it.
    """

    first_block: int
    end_block: int
    gpu_class: GpuClassName
    m: int
    batch: int
    instances: int
    latency_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPipeline:
    """One pipeline of a published plan, with the throughput its authors give it."""

    model: ModelName
    throughput_rps: float
    stages: tuple[PublishedStage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPlan:
    """One scheduler's plan, and what it was planned with.

    Attributes:
        cluster: with the options of this scheduler: its stages, shares and margin.
        rates: samples/s at which it assumed batches to fill.
        margins_us: of each model; `PlannerOptions.slo_margin` gives them back.
        throughputs: of each model.
        seconds: what solving took its authors; None where the file does not say.
        gap: the solver's, relative; None where the file does not say.
    """

    scheduler: Scheduler
    cluster: Cluster
    rates: Mapping[ModelName, float]
    margins_us: Mapping[ModelName, Micros]
    throughputs: Mapping[ModelName, float]
    pipelines: tuple[PublishedPipeline, ...]
    seconds: float | None
    gap: float | None

    @property
    def objective_rps(self) -> float:
        """Least throughput divided by weight over the models."""
        return min(self.throughputs[each.name] / each.weight for each in self.cluster.models)

    def gpus(self) -> dict[tuple[ModelName, GpuClassName], int]:
        """Return how many GPUs each model has of each class, where it has any.

        Shares are rounded up to whole GPUs by model, position and class, as they were planned.
        """
        held: defaultdict[tuple[ModelName, GpuClassName, int], Fraction] = defaultdict(Fraction)
        for pipeline in self.pipelines:
            for position, stage in enumerate(pipeline.stages):
                key = pipeline.model, stage.gpu_class, position
                held[key] += Fraction(stage.instances, stage.m)
        whole: defaultdict[tuple[ModelName, GpuClassName], int] = defaultdict(int)
        for (model, gpu_class, _), gpus in held.items():
            whole[model, gpu_class] += math.ceil(gpus)
        return dict(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedConfiguration:
    """The plans of all schedulers for one fleet and one group of models.

    Attributes:
        name: that of its files, without the scheduler.
        profiles: every share that any of its plans may use.
        plans: at least one, in the order of `Scheduler`.
    """

    name: str
    profiles: Profiles
    plans: Mapping[Scheduler, PublishedPlan]

    @property
    def leading(self) -> PublishedPlan:
        """PPipe's plan if it is there, else the first that is."""
        return next(iter(self.plans.values()))

    @property
    def cluster(self) -> Cluster:
        """Fleet, models and options of the leading plan."""
        return self.leading.cluster

    @property
    def rates(self) -> Mapping[ModelName, float]:
        """Rates of the leading plan."""
        return self.leading.rates

    @property
    def objectives(self) -> dict[Scheduler, float]:
        """Objective of each plan: least throughput divided by weight."""
        return {scheduler: plan.objective_rps for scheduler, plan in self.plans.items()}

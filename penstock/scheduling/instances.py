"""Instances that are ready, the pools they form and the network cards they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.domain.errors import InvalidPlan
from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, PoolId, ServerId
from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool
from penstock.domain.units import Micros
from penstock.scheduling.timeline import Timeline

TransferKey: TypeAlias = tuple[BatchId, int]  # a batch may cross one card before several stages


@dataclass(slots=True, eq=False)
class NetworkCard:
    """What all instances of one server share: one timeline each way."""

    up: Timeline[TransferKey] = field(default_factory=Timeline)
    down: Timeline[TransferKey] = field(default_factory=Timeline)


@dataclass(slots=True, eq=False)
class Instance:
    """A ready instance.

    Attributes:
        next_sequence: place of its next booking in the order booked on it.
    """

    id: InstanceId
    model: ModelName
    pool: PoolId
    server: ServerId
    card: NetworkCard
    timeline: Timeline[BatchId] = field(default_factory=Timeline)
    next_sequence: int = 0


@dataclass(slots=True, eq=False)
class LivePool:
    """A pool of the plan with the instances that are ready, in the order they joined."""

    plan: Pool
    instances: dict[InstanceId, Instance] = field(default_factory=dict)

    def latency_us(self, batch: int) -> Micros:
        """Return the stage's latency at a batch size up to the planned one."""
        return self.plan.latency_us_by_batch[batch - 1]


@dataclass(slots=True, eq=False)
class LivePipeline:
    """A pipeline of the plan over live pools."""

    plan: Pipeline
    pools: tuple[LivePool, ...]

    @property
    def id(self) -> PipelineId:
        """Id of the planned pipeline."""
        return self.plan.id

    @property
    def batch(self) -> int:
        """Largest batch that every pool takes."""
        return min(pool.plan.batch for pool in self.pools)

    def relative_rate(self, size: int) -> float:
        """Return the throughput at a batch size, as a part of that at the planned one."""
        return self._rate(size) / self._rate(self.batch)

    def _rate(self, size: int) -> float:
        """Return samples per microsecond that the slowest pool gets through."""
        return min(len(pool.instances) * size / pool.latency_us(size) for pool in self.pools)

    def has_route(self) -> bool:
        """Return whether each pool has an instance."""
        return all(pool.instances for pool in self.pools)


def live_pipelines(plan: ModelPlan) -> tuple[dict[PoolId, LivePool], tuple[LivePipeline, ...]]:
    """Return a model's pools, all empty, and its pipelines over them."""
    pools = {pool.id: LivePool(pool) for pool in plan.pools}
    pipelines = tuple(
        LivePipeline(pipeline, tuple(pools[each] for each in pipeline.pools))
        for pipeline in plan.pipelines
    )
    return pools, pipelines


def check_batches(plan: Plan) -> None:
    """Check that no pipeline changes its batch on the way: batches are booked as a whole.

    Raises:
        InvalidPlan: the pools of a pipeline differ in batch.
    """
    for model in plan.models:
        for pipeline in model.pipelines:
            batches = [model.pool(each).batch for each in pipeline.pools]
            if len(set(batches)) > 1:
                place = f"pipeline {pipeline.id} of model {model.model}"
                expected = "the same batch in each of its pools (plan without `rebatch`)"
                found = f"batches {', '.join(map(str, batches))}"
                raise InvalidPlan("plan", place, expected, found)

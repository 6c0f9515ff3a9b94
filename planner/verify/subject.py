"""One model of a plan, beside all that it was planned for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.domain.cluster import GpuClass, PlannerOptions, ServedModel
from penstock.domain.ids import GpuClassName, PoolId
from penstock.domain.plan import ModelPlan, Pipeline, Pool
from penstock.domain.profiles import LatencyProfile
from penstock.domain.units import Micros

TOLERANCE = 1e-6  # relative, for numbers that passed through a solver


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a verifier looks at while it checks one model.

    Attributes:
        plan: what is checked.
        served: what was asked for.
        options: of the cluster.
        formulation: as the plan's report names it.
        classes: all GPU classes of the cluster.
        profiles: of this model, by GPU class.
    """

    plan: ModelPlan
    served: ServedModel
    options: PlannerOptions
    formulation: str
    classes: Mapping[GpuClassName, GpuClass]
    profiles: Mapping[GpuClassName, LatencyProfile]

    @property
    def margin_us(self) -> Micros:
        """The part of the SLO that has to stay free for queueing."""
        if self.served.margin_us is not None:
            return self.served.margin_us
        return round(self.served.slo_us * self.options.slo_margin)

    @property
    def max_stages(self) -> int:
        """How many stages a pipeline may have."""
        own = self.served.max_stages
        return self.options.max_stages if own is None else min(own, self.options.max_stages)

    def pools_of(self, pipeline: Pipeline) -> list[Pool]:
        """Return the pools that a pipeline leads through; unknown ids are left out."""
        pools: dict[PoolId, Pool] = {pool.id: pool for pool in self.plan.pools}
        return [pools[each] for each in pipeline.pools if each in pools]

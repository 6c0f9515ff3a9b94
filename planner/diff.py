"""What changes from one plan to another: throughputs, pipelines, stages, GPUs, cost.

A stage is blocks of a model on a share of a class, wherever in a pipeline. Its instances are
kept as far as both plans have them: another batch size loads nothing. Reads the two plans alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias, TypeVar

from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import ModelPlan, Plan, Pool
from penstock.domain.units import Micros
from planner.usage import cost_per_hour, gpus_used

T = TypeVar("T")

_SAME = 1e-6  # relative: throughputs closer than this are the same


class StageName(NamedTuple):
    """What an instance runs, and where."""

    first_block: int
    end_block: int
    gpu_class: GpuClassName
    share: Fraction


_Route: TypeAlias = tuple[StageName, ...]
_Held: TypeAlias = Sequence[tuple[int, int]]  # instances and batch of each pool of a stage
_Carried: TypeAlias = Sequence[tuple[float, tuple[int, ...]]]  # throughput and batches of each

K = TypeVar("K", StageName, _Route)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageChange:
    """One stage of a model, before and after.

    Attributes:
        instances: 0 where a plan does not have it.
        batches: of its pools, sorted.
    """

    model: ModelName
    stage: StageName
    instances: tuple[int, int]
    batches: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return self.instances[0] != self.instances[1] or self.batches[0] != self.batches[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineChange:
    """The pipelines of a model through the same stages, before and after.

    Attributes:
        rps: throughput; None where a plan does not have it.
        batches: of its stages, in order, one tuple per pipeline.
    """

    model: ModelName
    stages: tuple[StageName, ...]
    rps: tuple[float | None, float | None]
    batches: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]

    @property
    def kind(self) -> str:
        """``added``, ``removed``, ``changed`` or ``same``."""
        before, after = self.rps
        if before is None or after is None:
            return "added" if before is None else "removed"
        same = _close(before, after) and self.batches[0] == self.batches[1]
        return "same" if same else "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """One model, before and after; None where a plan does not serve it."""

    model: ModelName
    rps: tuple[float | None, float | None]
    slo_us: tuple[Micros | None, Micros | None]
    margin_us: tuple[Micros | None, Micros | None]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        before, after = self.rps
        if before is None or after is None:
            return True
        slo, margin = self.slo_us, self.margin_us
        return not _close(before, after) or slo[0] != slo[1] or margin[0] != margin[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """The GPUs of one class; 0 of 0 where a plan does not know it."""

    gpu_class: GpuClassName
    used: tuple[int, int]
    count: tuple[int, int]

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        return self.used[0] != self.used[1] or self.count[0] != self.count[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDiff:
    """Two plans compared; unchanged parts are in it too.

    Attributes:
        cost_per_hour: None where a class has no price.
    """

    models: tuple[ModelChange, ...]
    gpus: tuple[ClassChange, ...]
    stages: tuple[StageChange, ...]
    pipelines: tuple[PipelineChange, ...]
    cost_per_hour: tuple[float | None, float | None]

    @property
    def kept(self) -> int:
        """Instances that go on running."""
        return sum(min(each.instances) for each in self.stages)

    @property
    def started(self) -> int:
        """Instances only the new plan has."""
        return sum(each.instances[1] for each in self.stages) - self.kept

    @property
    def stopped(self) -> int:
        """Instances only the old plan has."""
        return sum(each.instances[0] for each in self.stages) - self.kept

    @property
    def same(self) -> bool:
        """Whether the plans do the same."""
        costs = self.cost_per_hour
        return not (
            costs[0] != costs[1]
            or any(each.changed for each in self.models)
            or any(each.changed for each in self.gpus)
            or any(each.changed for each in self.stages)
            or any(each.kind != "same" for each in self.pipelines)
        )


def compare(old: Plan, new: Plan) -> PlanDiff:
    """Return what changes from one plan to the other, in a fixed order."""
    names = _either([each.model for each in old.models], [each.model for each in new.models])
    pairs = [(name, _model(old, name), _model(new, name)) for name in names]
    return PlanDiff(
        models=tuple(_model_change(*each) for each in pairs),
        gpus=_class_changes(old, new),
        stages=tuple(change for each in pairs for change in _stage_changes(*each)),
        pipelines=tuple(change for each in pairs for change in _pipeline_changes(*each)),
        cost_per_hour=(cost_per_hour(old), cost_per_hour(new)),
    )


def _either(old: Sequence[T], new: Sequence[T]) -> list[T]:
    """Return what either has, each once, in the order of the new."""
    return [*new, *(each for each in old if each not in new)]


def _model(plan: Plan, name: ModelName) -> ModelPlan | None:
    return next((each for each in plan.models if each.model == name), None)


def _model_change(name: ModelName, old: ModelPlan | None, new: ModelPlan | None) -> ModelChange:
    return ModelChange(
        model=name,
        rps=(old.throughput_rps if old else None, new.throughput_rps if new else None),
        slo_us=(old.slo_us if old else None, new.slo_us if new else None),
        margin_us=(old.margin_us if old else None, new.margin_us if new else None),
    )


def _class_changes(old: Plan, new: Plan) -> tuple[ClassChange, ...]:
    used = gpus_used(old), gpus_used(new)
    counts = tuple({each.name: each.count for each in plan.gpu_classes} for plan in (old, new))
    return tuple(
        ClassChange(
            gpu_class=name,
            used=(used[0].get(name, 0), used[1].get(name, 0)),
            count=(counts[0].get(name, 0), counts[1].get(name, 0)),
        )
        for name in _either(list(counts[0]), list(counts[1]))
    )


def _stage_changes(
    name: ModelName, old: ModelPlan | None, new: ModelPlan | None
) -> list[StageChange]:
    return [
        StageChange(
            model=name,
            stage=stage,
            instances=(_instances(before), _instances(after)),
            batches=(_batches(before), _batches(after)),
        )
        for stage, before, after in _side_by_side(_stages(old), _stages(new))
    ]


def _pipeline_changes(
    name: ModelName, old: ModelPlan | None, new: ModelPlan | None
) -> list[PipelineChange]:
    return [
        PipelineChange(
            model=name,
            stages=stages,
            rps=(_flow(before), _flow(after)),
            batches=(_sizes(before), _sizes(after)),
        )
        for stages, before, after in _side_by_side(_routes(old), _routes(new))
    ]


def _side_by_side(
    old: Mapping[K, Sequence[T]], new: Mapping[K, Sequence[T]]
) -> list[tuple[K, Sequence[T], Sequence[T]]]:
    """Return what each has under a key, for the keys of either; nothing where one lacks it."""
    return [(key, old.get(key, ()), new.get(key, ())) for key in sorted(old.keys() | new.keys())]


def _stages(model: ModelPlan | None) -> Mapping[StageName, _Held]:
    found: defaultdict[StageName, list[tuple[int, int]]] = defaultdict(list)
    for pool in model.pools if model else ():
        found[_stage(pool)].append((pool.instances, pool.batch))
    return found


def _routes(model: ModelPlan | None) -> Mapping[_Route, _Carried]:
    found: defaultdict[_Route, list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
    if model is None:
        return found
    for pipeline in model.pipelines:
        pools = [model.pool(each) for each in pipeline.pools]
        batches = tuple(each.batch for each in pools)
        found[tuple(map(_stage, pools))].append((pipeline.throughput_rps, batches))
    return found


def _stage(pool: Pool) -> StageName:
    return StageName(pool.first_block, pool.end_block, pool.gpu_class, pool.share)


def _instances(held: _Held) -> int:
    return sum(instances for instances, _ in held)


def _batches(held: _Held) -> tuple[int, ...]:
    return tuple(sorted({batch for _, batch in held}))


def _flow(carried: _Carried) -> float | None:
    return sum(rps for rps, _ in carried) if carried else None


def _sizes(carried: _Carried) -> tuple[tuple[int, ...], ...]:
    return tuple(sorted(batches for _, batches in carried))


def _close(left: float, right: float) -> bool:
    return abs(left - right) <= _SAME * max(abs(left), abs(right))

"""What more would be worth: another GPU of each class, longer SLOs.

Two answers to each. The relaxation's price is exact for the program without whole instances, and
says what a small change is worth. The gain is what planning again finds, whole instances and all,
in bounded time; how far it is proven goes with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from penstock.domain.cluster import Cluster, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import ObjectiveUnit, Plan
from planner.baselines import no_partition
from planner.enumeration import enumerate_paths
from planner.inputs import PlannerInputs, Profiles, gather_inputs
from planner.paths import PathTable
from planner.planning import solver_settings
from planner.relaxation import Relaxation, relax
from planner.search import estimate_rates
from planner.solve import SolverName
from planner.sought import Task, task_of
from planner.usage import gpus_used
from planner.variants import try_plan, with_one_more, with_slos

SLO_STRETCH = 1.1
_NONE = 1e-9  # relative to the value: gains below are rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a change does to the objective's value; better is positive.

    Attributes:
        found: by planning again; None if nothing was found in time.
        most: proven: it is not more.
    """

    found: float | None
    most: float | None

    def per(self, price: float | None) -> float | None:
        """Return what is gained for each unit of price."""
        return self.found / price if self.found is not None and price else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassOutlook:
    """One GPU more of a class.

    Attributes:
        usable: its GPUs less those kept spare.
        shadow_price: the relaxation's worth of one more, in the objective's unit.
    """

    name: GpuClassName
    used: int
    usable: int
    price_per_hour: float | None
    shadow_price: float
    gain: Gain

    @property
    def used_up(self) -> bool:
        """Whether no GPU of it is left."""
        return self.used >= self.usable

    @property
    def shadow_per_price(self) -> float | None:
        """The shadow price for each unit of price."""
        return self.shadow_price / self.price_per_hour if self.price_per_hour else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloOutlook:
    """A longer SLO.

    Attributes:
        model: whose; None: of all models.
        relaxed: what the relaxation gains.
        gain: None where it was not planned again.
    """

    model: ModelName | None
    stretch: float
    relaxed: float
    gain: Gain | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What more would be worth to a plan.

    Attributes:
        value: what gains are gains over.
        maximise: whether a greater value is better.
        seconds_each: time that each planning had.
    """

    value: float
    unit: ObjectiveUnit
    maximise: bool
    relaxed_value: float
    classes: tuple[ClassOutlook, ...]
    slos: tuple[SloOutlook, ...]
    seconds_each: float

    @property
    def next_gpu(self) -> GpuClassName | None:
        """The class whose next GPU gains most; None if none gains anything."""
        return _greatest((each.name, each.gain.found) for each in self.classes)

    @property
    def next_gpu_per_price(self) -> GpuClassName | None:
        """The same for each unit of price; None too if a class has no price."""
        if not all(each.price_per_hour for each in self.classes):
            return None
        return _greatest((each.name, each.gain.per(each.price_per_hour)) for each in self.classes)


def look_ahead(
    cluster: Cluster,
    profiles: Profiles,
    plan: Plan,
    *,
    seconds_each: float = 5.0,
    solver: SolverName = "highs",
    tick: Callable[[], None] = lambda: None,
) -> Outlook:
    """Return what more would be worth.

    Args:
        cluster: what the plan was made from; see `planner.variants.as_planned`.
        profiles: likewise.
        plan: whose value gains are measured against.
        seconds_each: time limit for each planning again.
        solver: which one plans again.
        tick: called after each planning, as often as `plannings` says.

    Raises:
        Infeasible: the cluster has no plan.
    """
    partition = plan.solve.formulation != "no-partition"

    def again(changed: Cluster) -> tuple[float, float] | None:
        found = try_plan(changed, profiles, seconds_each, solver=solver, partition=partition).plan
        tick()
        return None if found is None else (found.solve.value, found.solve.bound)

    views = _Views(cluster, profiles, partition=partition, seconds=seconds_each, solver=solver)
    # A plan that is not proven best may gain by the time alone: give it that time first.
    same = again(cluster)
    sign = 1.0 if views.task.maximise else -1.0
    value = max([plan.solve.value, *([same[0]] if same else [])], key=lambda each: sign * each)

    def gain(changed: Cluster) -> Gain:
        found = again(changed)
        if found is None:
            return Gain(found=None, most=None)
        # What is planned without the change is still a plan with it.
        better = [max(0.0, sign * (each - value)) for each in found]
        kept = [0.0 if each <= _NONE * abs(value) else each for each in better]
        return Gain(found=kept[0], most=kept[1])

    used = gpus_used(plan)
    classes = tuple(
        ClassOutlook(
            name=each.name,
            used=used[each.name],
            usable=max(0, each.count - cluster.options.spare_gpus),
            price_per_hour=each.price_per_hour,
            shadow_price=views.shadow_price(each.name),
            gain=gain(with_one_more(cluster, each.name)),
        )
        for each in cluster.gpu_classes
    )
    return Outlook(
        value=value,
        unit=plan.solve.unit,
        maximise=views.task.maximise,
        relaxed_value=views.relaxation.bound,
        classes=classes,
        slos=(
            _all_slos(views, gain(with_slos(cluster, SLO_STRETCH))),
            *(_one_slo(views, each) for each in _several(cluster.models)),
        ),
        seconds_each=seconds_each,
    )


def plannings(cluster: Cluster) -> int:
    """Return how often `look_ahead` plans."""
    return len(cluster.gpu_classes) + 2


class _Views:
    """The relaxation of a cluster, and of the same with a small change."""

    def __init__(
        self,
        cluster: Cluster,
        profiles: Profiles,
        *,
        partition: bool,
        seconds: float,
        solver: SolverName,
    ) -> None:
        self._cluster, self._profiles, self._partition = cluster, profiles, partition
        settings = solver_settings(cluster.options, solver, time.perf_counter() + seconds)
        inputs = self._inputs(cluster)
        self._rates = estimate_rates(inputs, settings)
        self.task = task_of(inputs)
        self._tables = enumerate_paths(inputs, self._rates)
        self.relaxation = self._relaxed(self.task, self._tables)

    def _inputs(self, cluster: Cluster) -> PlannerInputs:
        inputs = gather_inputs(cluster, self._profiles)
        return inputs if self._partition else no_partition(inputs)

    def _relaxed(self, task: Task, tables: Sequence[PathTable]) -> Relaxation:
        found = relax(task, tables)
        if found is None:
            return Relaxation(bound=0.0, scarcity={}, price={}, worth={}, shortfall=True)
        return found

    def shadow_price(self, name: GpuClassName) -> float:
        """Return what one more GPU of a class would be worth to the relaxation."""
        if self.task.limits.max_price is not None:
            # The cap ends what more of a class is worth, often well within one GPU.
            return self._gained(self._inputs(with_one_more(self._cluster, name)), self._tables)
        return self.relaxation.scarcity.get(name, 0.0)

    def slo_gain(self, model: ModelName | None) -> float:
        """Return what a longer SLO would be worth to the relaxation."""
        inputs = self._inputs(with_slos(self._cluster, SLO_STRETCH, model))
        return self._gained(inputs, enumerate_paths(inputs, self._rates))

    def _gained(self, inputs: PlannerInputs, tables: Sequence[PathTable]) -> float:
        gained = self._relaxed(task_of(inputs), tables).bound - self.relaxation.bound
        gained = gained if self.task.maximise else -gained
        return gained if gained > _NONE * abs(self.relaxation.bound) else 0.0


def _all_slos(views: _Views, gain: Gain) -> SloOutlook:
    return SloOutlook(model=None, stretch=SLO_STRETCH, relaxed=views.slo_gain(None), gain=gain)


def _one_slo(views: _Views, model: ServedModel) -> SloOutlook:
    relaxed = views.slo_gain(model.name)
    return SloOutlook(model=model.name, stretch=SLO_STRETCH, relaxed=relaxed, gain=None)


def _several(models: Sequence[ServedModel]) -> Sequence[ServedModel]:
    """Return the models if there is more than one: else all of them is each of them."""
    return models if len(models) > 1 else ()


def _greatest(gains: Iterator[tuple[GpuClassName, float | None]]) -> GpuClassName | None:
    known = [(gain, name) for name, gain in gains if gain]
    return max(known, key=lambda each: each[0])[1] if known else None

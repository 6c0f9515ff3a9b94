"""What a solver is asked for: the objective as values that every part of the planner reads alike.

Knows nothing of any solver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.domain.cluster import GpuClass, Packing, PlannerOptions, ServedModel
from penstock.domain.errors import InvalidCluster
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import ObjectiveUnit
from planner.inputs import PlannerInputs


@dataclass(frozen=True, slots=True)
class MaxMin:
    """Most weighted throughput of the model that has least of it."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Most throughput of all models together."""


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Least sum of prices of the GPUs in use, for the rates asked.

    Attributes:
        price: of one GPU, by class.
        whole: count whole GPUs; False counts parts of GPUs, as where models share them.
    """

    price: Mapping[GpuClassName, float]
    whole: bool = True


Sought: TypeAlias = MaxMin | Goodput | Cheapest


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the GPUs in use must keep to.

    Attributes:
        count: GPUs that may be used, by class.
        price: of one GPU; empty unless `max_price` is set.
        max_price: most that all together may cost.
    """

    count: Mapping[GpuClassName, int]
    price: Mapping[GpuClassName, float] = field(default_factory=dict)
    max_price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A planning problem without its paths.

    Attributes:
        exclusive: at most one path per model and ordered tuple of classes (compat mode).
    """

    gpu_classes: tuple[GpuClass, ...]
    models: tuple[ServedModel, ...]
    limits: Limits
    sought: Sought
    packing: Packing
    exclusive: bool = False

    @property
    def maximise(self) -> bool:
        """Whether a greater value is better."""
        return not isinstance(self.sought, Cheapest)

    @property
    def minimises_price(self) -> bool:
        """Whether the value is the price that is limited: then its bound is looked at afterwards.

        As a row parallel to the objective, OR-Tools 9.15's SCIP gives answers that break it.
        """
        return isinstance(self.sought, Cheapest) and self.sought.price == self.limits.price


def task_of(inputs: PlannerInputs) -> Task:
    """Return the task that the inputs set.

    Raises:
        InvalidCluster: a price or a rate that the objective needs is missing.
    """
    options = inputs.options
    return Task(
        gpu_classes=inputs.gpu_classes,
        models=tuple(model.served for model in inputs.models),
        limits=_limits(inputs),
        sought=_sought(inputs),
        packing="per-stage" if options.mode == "compat" else options.packing,
        exclusive=options.mode == "compat",
    )


def unit_of(options: PlannerOptions) -> ObjectiveUnit:
    """Return the unit of the objective's value."""
    if options.objective == "least-cost":
        return "per-hour"
    return "gpus" if options.objective == "fewest-gpus" else "rps"


def least_weighted(models: Sequence[ServedModel], total: Mapping[ModelName, float]) -> float:
    """Return the least throughput divided by weight over the models."""
    return min(total.get(model.name, 0.0) / model.weight for model in models)


def _limits(inputs: PlannerInputs) -> Limits:
    options = inputs.options
    count = {each.name: max(0, each.count - options.spare_gpus) for each in inputs.gpu_classes}
    if options.max_price_per_hour is None:
        return Limits(count=count)
    return Limits(count=count, price=_prices(inputs), max_price=options.max_price_per_hour)


def _sought(inputs: PlannerInputs) -> Sought:
    match inputs.options.objective:
        case "max-min":
            return MaxMin()
        case "goodput":
            _check_rates(inputs)
            return Goodput()
        case "least-cost":
            _check_rates(inputs)
            return Cheapest(_prices(inputs))
        case "fewest-gpus":
            _check_rates(inputs)
            return Cheapest({each.name: 1.0 for each in inputs.gpu_classes})


def _prices(inputs: PlannerInputs) -> dict[GpuClassName, float]:
    prices = {}
    for index, each in enumerate(inputs.gpu_classes):
        if each.price_per_hour is None:
            place = f"gpu_classes[{index}].price_per_hour"
            expected = f"a price of {each.name}: costs are to be counted"
            raise InvalidCluster("cluster", place, expected, "none")
        prices[each.name] = each.price_per_hour
    return prices


def _check_rates(inputs: PlannerInputs) -> None:
    """See that every model asks for a rate: only max-min keeps it from getting nothing otherwise.

    Raises:
        InvalidCluster: one does not.
    """
    for index, model in enumerate(inputs.models):
        if not model.served.rate_rps:
            place = f"models[{index}].rate_rps"
            expected = (
                f"a rate of {model.served.name}, "
                f"which objective {inputs.options.objective} needs of every model"
            )
            raise InvalidCluster("cluster", place, expected, "none")

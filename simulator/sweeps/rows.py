"""What the files of a sweep hold of each run: one line per model, one per GPU class.

A column is added by a line in `MODEL_COLUMNS` or `CLASS_COLUMNS`. Rows are text from the start, so
that a sweep that went on after a break writes the same bytes as one that never broke.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from penstock.domain.outcomes import Summary
from penstock.domain.plan import ModelPlan, Plan
from penstock.domain.requests import DropReason
from penstock.domain.units import US_PER_MS
from simulator.metrics import ClassUse, batch_sizes, class_uses, cost, mean_batch, queue_summary
from simulator.simulate import Simulation
from simulator.sweeps.sweep import ALL, Run, Sweep

Row: TypeAlias = Mapping[str, str]
Cell: TypeAlias = str | int | float | None

_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Rows:
    """What one run leaves.

    Attributes:
        models: one per model, and one for all.
        classes: one per GPU class.
    """

    models: tuple[Row, ...]
    classes: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """One model of a run, or all.

    Attributes:
        model: None for all.
        plan: that was run; its planned throughput, whatever counts as a load of 1.
    """

    plan: Plan
    model: ModelPlan | None
    result: Simulation
    summary: Summary


def _planned_rps(each: Counted) -> Cell:
    models = each.plan.models if each.model is None else (each.model,)
    return sum(model.throughput_rps for model in models)


def _refused(reason: DropReason) -> Callable[[Counted], Cell]:
    return lambda each: each.summary.refusals.get(reason.value, 0)


def _waiting(field: str) -> Callable[[Counted], Cell]:
    """Return what tells how many samples waited; each model has a queue of its own."""

    def waiting(each: Counted) -> Cell:
        if each.model is None:
            return None
        value: float = getattr(queue_summary(each.result.queues[each.model.model]), field)
        return value

    return waiting


def _mean_batch(each: Counted) -> Cell:
    if each.model is None:
        return None
    sizes = batch_sizes(each.result)
    return mean_batch(sizes[pool.id] for pool in each.model.pools)


def _cost(each: Counted) -> Cell:
    paid = cost(each.plan, each.result) if each.model is None else None
    return None if paid is None else paid.per_million_in_time


RUN_COLUMNS: Mapping[str, Callable[[Run], Cell]] = MappingProxyType(
    {
        "plan": lambda run: run.series.plan,
        "policy": lambda run: run.series.policy,
        "routing": lambda run: run.series.routing,
        "load": lambda run: repr(run.load),  # not rounded: it says which run this is
        "seed": lambda run: run.seed,
    }
)
MODEL_COLUMNS: Mapping[str, Callable[[Counted], Cell]] = MappingProxyType(
    {
        "model": lambda each: ALL if each.model is None else each.model.model,
        "slo_ms": lambda each: None if each.model is None else each.model.slo_us / US_PER_MS,
        "planned_rps": _planned_rps,
        "offered_rps": lambda each: each.summary.offered_rps,
        "goodput_rps": lambda each: each.summary.goodput_rps,
        "attainment": lambda each: each.summary.attainment,
        "p50_ms": lambda each: each.summary.p50_ms,
        "p95_ms": lambda each: each.summary.p95_ms,
        "p99_ms": lambda each: each.summary.p99_ms,
        "requests": lambda each: each.summary.requests,
        "answered": lambda each: each.summary.answered,
        "in_time": lambda each: each.summary.in_time,
        "late": lambda each: each.summary.answered - each.summary.in_time,
        **{f"refused_{reason.value}": _refused(reason) for reason in DropReason},
        "waiting_mean_samples": _waiting("mean"),
        "waiting_p99_samples": _waiting("p99"),
        "batch_mean_samples": _mean_batch,
        "stragglers": lambda each: each.result.stragglers if each.model is None else None,
        "losses": lambda each: each.result.losses if each.model is None else None,
        "cost_per_million_in_time": _cost,
    }
)
CLASS_COLUMNS: Mapping[str, Callable[[ClassUse], Cell]] = MappingProxyType(
    {
        "gpu_class": lambda each: each.name,
        "gpus": lambda each: each.gpus,
        "gpus_used": lambda each: each.used,
        "utilisation": lambda each: each.utilisation,
        "useful_utilisation": lambda each: each.useful_utilisation,
    }
)
RUNS_HEADER = (*RUN_COLUMNS, *MODEL_COLUMNS)
UTILISATION_HEADER = (*RUN_COLUMNS, *CLASS_COLUMNS)


def rows_of(sweep: Sweep, run: Run) -> Rows:
    """Simulate a run and return its rows."""
    plan = sweep.plans[run.series.plan]
    result = sweep.simulated(run)
    start = {name: _text(of(run)) for name, of in RUN_COLUMNS.items()}
    counted = [Counted(plan, None, result, result.summary())]
    counted += [Counted(plan, each, result, result.summary(each.model)) for each in plan.models]
    return Rows(
        models=tuple(
            start | {name: _text(of(each)) for name, of in MODEL_COLUMNS.items()}
            for each in counted
        ),
        classes=tuple(
            start | {name: _text(of(each)) for name, of in CLASS_COLUMNS.items()}
            for each in class_uses(plan, result)
        ),
    )


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case float():
            return repr(round(cell, _DECIMALS))
        case _:
            return str(cell)

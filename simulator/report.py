"""A simulation's result as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from penstock.domain.ids import PoolId
from penstock.domain.outcomes import Summary
from penstock.domain.plan import ModelPlan, Plan
from simulator.metrics import ClassUse, batch_sizes, class_uses, cost, mean_batch, queue_summary
from simulator.simulate import Simulation

if TYPE_CHECKING:
    from rich.table import Table


def summary_json(plan: Plan, result: Simulation) -> dict[str, object]:
    """Return all figures, per model and overall, with the planned ones beside them."""
    sizes = batch_sizes(result)
    paid = cost(plan, result)
    figures: dict[str, object] = {
        "simulated": True,
        "overall": asdict(result.summary()),
        "models": {each.model: _model_json(each, result, sizes) for each in plan.models},
        "gpu_classes": {each.name: _class_json(each) for each in class_uses(plan, result)},
        "utilisation": result.utilisation(),
        "disturbances": {
            "losses": result.losses,
            "stragglers": result.stragglers,
            "profile_factors": dict(result.profile_factors),
        },
    }
    return figures if paid is None else figures | {"cost": asdict(paid)}


def _model_json(
    model: ModelPlan, result: Simulation, sizes: Mapping[PoolId, Mapping[int, int]]
) -> dict[str, object]:
    return {
        "planned_rps": model.throughput_rps,
        "slo_ms": model.slo_us / 1_000,
        **asdict(result.summary(model.model)),
        "queue": asdict(queue_summary(result.queues[model.model])),
        "batches": {
            pool.id: {str(size): count for size, count in sizes[pool.id].items()}
            for pool in model.pools
        },
    }


def _class_json(use: ClassUse) -> dict[str, object]:
    return {
        "gpus": use.gpus,
        "used": use.used,
        "utilisation": use.utilisation,
        "useful_utilisation": use.useful_utilisation,
    }


def summary_table(plan: Plan, result: Simulation) -> Table:
    """Return one column per model for a person."""
    from rich.table import Table

    table = Table("", *(model.model for model in plan.models), title="Simulated")
    summaries = [result.summary(model.model) for model in plan.models]
    queues = [queue_summary(result.queues[model.model]) for model in plan.models]
    table.add_row("planned", *(f"{model.throughput_rps:.1f}/s" for model in plan.models))
    table.add_row("offered", *(f"{each.offered_rps:.1f}/s" for each in summaries))
    table.add_row("goodput", *(f"{each.goodput_rps:.1f}/s" for each in summaries))
    table.add_row("attainment", *(f"{each.attainment:.2%}" for each in summaries))
    table.add_row("latency p50", *(_ms(each.p50_ms) for each in summaries))
    table.add_row("latency p95", *(_ms(each.p95_ms) for each in summaries))
    table.add_row("latency p99", *(_ms(each.p99_ms) for each in summaries))
    table.add_row("SLO", *(_ms(model.slo_us / 1_000) for model in plan.models))
    table.add_row("waiting p50", *(str(each.p50) for each in queues))
    table.add_row("waiting p99", *(str(each.p99) for each in queues))
    table.add_row("mean batch", *_mean_batches(plan, result))
    table.add_row("refused", *(_refusals(each) for each in summaries))
    return table


def class_table(plan: Plan, result: Simulation) -> Table:
    """Return one row per GPU class for a person; what it costs and what went wrong below."""
    from rich.table import Table

    table = Table("GPU class", "GPUs", "used", "busy", "usefully", title="GPUs")
    for each in class_uses(plan, result):
        parts = f"{each.utilisation:.1%}", f"{each.useful_utilisation:.1%}"
        table.add_row(each.name, str(each.gpus), str(each.used), *parts)
    table.caption = ", ".join(_remarks(plan, result))
    return table


def _remarks(plan: Plan, result: Simulation) -> list[str]:
    remarks: list[str] = []
    paid = cost(plan, result)
    if paid is not None:
        remarks.append(f"{paid.per_hour:.2f} per hour")
        if paid.per_million_in_time is not None:
            remarks.append(f"{paid.per_million_in_time:.2f} per million samples in time")
    if result.losses:
        remarks.append(f"{result.losses} instances lost")
    if result.stragglers:
        remarks.append(f"{result.stragglers} stragglers")
    return remarks


def _mean_batches(plan: Plan, result: Simulation) -> list[str]:
    sizes = batch_sizes(result)
    means = [mean_batch(sizes[pool.id] for pool in model.pools) for model in plan.models]
    return ["-" if each is None else f"{each:.2f}" for each in means]


def outcomes_csv(result: Simulation) -> str:
    """Return one line per request: ``model,arrival_us,samples,slo_us,latency_us,cause``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "arrival_us", "samples", "slo_us", "latency_us", "cause"))
    for each in result.outcomes:
        latency = "" if each.latency_us is None else each.latency_us
        writer.writerow(
            (each.model, each.arrival_us, each.samples, each.slo_us, latency, each.cause)
        )
    return text.getvalue()


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _refusals(summary: Summary) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in sorted(summary.refusals.items())) or "0"

"""A simulation's result as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING

from penstock.domain.outcomes import Summary
from penstock.domain.plan import Plan
from simulator.simulate import Simulation

if TYPE_CHECKING:
    from rich.table import Table


def summary_json(plan: Plan, result: Simulation) -> dict[str, object]:
    """Return all figures, per model and overall, with the planned ones beside them."""
    return {
        "simulated": True,
        "overall": asdict(result.summary()),
        "models": {
            model.model: {
                "planned_rps": model.throughput_rps,
                "slo_ms": model.slo_us / 1_000,
                **asdict(result.summary(model.model)),
            }
            for model in plan.models
        },
        "utilisation": result.utilisation(),
    }


def summary_table(plan: Plan, result: Simulation) -> Table:
    """Return one column per model for a person."""
    from rich.table import Table

    table = Table("", *(model.model for model in plan.models), title="Simulated")
    summaries = [result.summary(model.model) for model in plan.models]
    table.add_row("planned", *(f"{model.throughput_rps:.1f}/s" for model in plan.models))
    table.add_row("offered", *(f"{each.offered_rps:.1f}/s" for each in summaries))
    table.add_row("goodput", *(f"{each.goodput_rps:.1f}/s" for each in summaries))
    table.add_row("attainment", *(f"{each.attainment:.2%}" for each in summaries))
    table.add_row("latency p50", *(_ms(each.p50_ms) for each in summaries))
    table.add_row("latency p95", *(_ms(each.p95_ms) for each in summaries))
    table.add_row("latency p99", *(_ms(each.p99_ms) for each in summaries))
    table.add_row("SLO", *(_ms(model.slo_us / 1_000) for model in plan.models))
    table.add_row("refused", *(_refusals(each) for each in summaries))
    return table


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

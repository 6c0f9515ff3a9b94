"""What a person or a program sees of a running frontend: one JSON document and one HTML page.

Knows nothing of HTTP. Both pages say the same; the HTML is made from the JSON.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from frontend.backend import WorkerLine
from frontend.catalogue import CatalogueModel
from frontend.ledger import Ledger
from frontend.link_lines import LinkLine
from frontend.statistics import Statistics
from penstock import __version__
from penstock.domain.ids import ModelName
from penstock.domain.plan import Pool
from penstock.domain.units import ms_from_micros

Cell: TypeAlias = str | int | float | list[str]
Row: TypeAlias = dict[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state as plain values: a few facts and four tables."""

    facts: Row
    models: list[Row]
    pools: list[Row]
    workers: list[Row]
    links: list[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSources:
    """Where the page reads.

    Attributes:
        unready: says why a model is not ready; empty if it is.
        waiting: samples of a model that wait for a batch.
        workers: those attached now.
        links: those open now.
        uptime_s: since the start.
    """

    models: Sequence[CatalogueModel]
    ledger: Ledger
    statistics: Statistics
    unready: Callable[[ModelName], str]
    waiting: Callable[[ModelName], int]
    workers: Callable[[], Sequence[WorkerLine]]
    links: Callable[[], Sequence[LinkLine]]
    emulated: Callable[[], bool]
    draining: Callable[[], bool]
    uptime_s: Callable[[], float]


def snapshot(sources: StatusSources) -> Status:
    """Return the present state."""
    return Status(
        facts={
            "server": "penstock",
            "version": __version__,
            "uptime_s": round(sources.uptime_s(), 3),
            "ready": not any(sources.unready(each.signature.name) for each in sources.models),
            "draining": sources.draining(),
            "emulated": sources.emulated(),
        },
        models=[_model(model, sources) for model in sources.models],
        pools=[
            _pool(model, pool, sources.ledger)
            for model in sources.models
            for pool in model.plan.pools
        ],
        workers=[_worker(each) for each in sources.workers()],
        links=[asdict(each) for each in sources.links()],
    )


def as_json(sources: StatusSources) -> str:
    """Return the state as a JSON document."""
    status = snapshot(sources)
    tables = {
        "models": status.models,
        "pools": status.pools,
        "workers": status.workers,
        "links": status.links,
    }
    return json.dumps({**status.facts, **tables}, indent=2) + "\n"


def as_html(sources: StatusSources) -> str:
    """Return the state as a page for a browser; it refreshes itself."""
    status = snapshot(sources)
    return _PAGE.format(
        title=html.escape(f"penstock {__version__}"),
        facts=_table([status.facts]),
        models=_table(status.models),
        pools=_table(status.pools),
        workers=_table(status.workers),
        links=_table(status.links),
    )


def _model(model: CatalogueModel, sources: StatusSources) -> Row:
    name = model.signature.name
    tally = sources.statistics.of(name)
    return {
        "model": name,
        "version": model.signature.version,
        "ready": not sources.unready(name),
        "reason": sources.unready(name),
        "slo_ms": ms_from_micros(model.plan.slo_us),
        "planned_rps": model.plan.throughput_rps,
        "in_flight": sources.ledger.open_requests[name],
        "waiting_samples": sources.waiting(name),
        "answered": tally.success.count,
        "failed": tally.fail.count,
        "batches": tally.batches,
    }


def _pool(model: CatalogueModel, pool: Pool, ledger: Ledger) -> Row:
    return {
        "model": model.signature.name,
        "pool": pool.id,
        "gpu_class": pool.gpu_class,
        "share": str(pool.share),
        "batch": pool.batch,
        "blocks": f"{pool.first_block}..{pool.end_block - 1}",
        "instances": pool.instances,
        "ready_instances": ledger.ready_instances(pool.id),
        "latency_ms": ms_from_micros(pool.latency_us),
    }


def _worker(line: WorkerLine) -> Row:
    return {**asdict(line), "instances": list(line.instances)}


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(_text(value))}</td>" for value in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: Cell) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem }}
table {{ border-collapse: collapse; margin-bottom: 1.5rem }}
th, td {{ border-bottom: 1px solid #ccc; padding: .25rem .75rem .25rem 0; text-align: left }}
th {{ font-weight: 600; color: #555 }}
</style></head><body>
<h1>{title}</h1>{facts}
<h2>Models</h2>{models}
<h2>Pools</h2>{pools}
<h2>Workers</h2>{workers}
<h2>Links</h2>{links}
<p><a href="/status.json">status.json</a> · <a href="/metrics">metrics</a></p>
</body></html>
"""

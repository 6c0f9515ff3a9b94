"""A trace: who asks what, when, as a CSV in order of arrival; and how to tell it from others."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.arrivals import Arrival, ModelTrace, Trace
from penstock.domain.errors import InvalidTrace
from penstock.domain.ids import ModelName
from penstock.formats import azure
from penstock.formats.checks import check_name
from penstock.formats.csv_text import Row, read_rows, write_rows
from penstock.formats.sources import Source, show

COLUMNS = ("arrival_us", "model", "samples")
COLUMNS_WITH_SLO = (*COLUMNS, "slo_us")


def read_any_trace(text: str, source: str) -> Trace:
    """Read a trace of ours or of Azure's; its header tells which it is.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    header = _header(text)
    if header in (COLUMNS, COLUMNS_WITH_SLO):
        return ModelTrace(read_trace(text, source))
    if header == azure.REQUESTS:
        return azure.read_requests(text, source)
    if header == azure.CALLS:
        return azure.read_calls(text, source)
    if header[: len(azure.COUNTS)] == azure.COUNTS:
        return azure.read_counts(text, source, header[len(azure.COUNTS) :])
    known = [COLUMNS, COLUMNS_WITH_SLO, azure.REQUESTS, azure.CALLS, (*azure.COUNTS, "1", "2", "…")]
    expected = "one of the headers " + ", ".join(repr(",".join(each)) for each in known)
    raise InvalidTrace(source, "line 1", expected, show(",".join(header)))


def read_trace(text: str, source: str) -> tuple[Arrival, ...]:
    """Read a trace of ours.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidTrace)
    arrivals: list[Arrival] = []
    last_us = 0
    for row in read_rows(text, where, COLUMNS, COLUMNS_WITH_SLO):
        arrivals.append(_arrival(row, last_us))
        last_us = arrivals[-1].arrival_us
    return tuple(arrivals)


def write_trace(arrivals: Sequence[Arrival]) -> str:
    """Write a trace; the column ``slo_us`` is there if any arrival has one of its own."""
    if all(each.slo_us is None for each in arrivals):
        return write_rows(COLUMNS, ((a.arrival_us, a.model, a.samples) for a in arrivals))
    return write_rows(
        COLUMNS_WITH_SLO,
        (
            (a.arrival_us, a.model, a.samples, "" if a.slo_us is None else a.slo_us)
            for a in arrivals
        ),
    )


def _header(text: str) -> tuple[str, ...]:
    line = text.removeprefix("\ufeff").partition("\n")[0]
    return tuple(line.removesuffix("\r").split(","))


def _arrival(row: Row, last_us: int) -> Arrival:
    arrival_us = row.integer("arrival_us")
    if arrival_us < last_us:
        expected = f"arrivals in order, so at least {last_us}"
        raise row.source.invalid(row.place("arrival_us"), expected, str(arrival_us))
    model = row.cells["model"]
    check_name(row.source, row.place("model"), model)
    return Arrival(
        arrival_us=arrival_us,
        model=ModelName(model),
        samples=row.integer("samples", 1),
        slo_us=row.integer("slo_us", 1) if row.cells.get("slo_us") else None,
    )

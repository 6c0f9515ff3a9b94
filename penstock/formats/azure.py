"""Traces of the Azure Public Dataset, as published: when somebody was asked, not which model.

Columns that arrivals have no use for (tokens, owners, triggers) are read past, but a row that is
broken anywhere is refused. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from penstock.domain.arrivals import (
    CallTrace,
    CountTrace,
    FunctionCalls,
    FunctionCounts,
    RequestTrace,
)
from penstock.domain.errors import InvalidTrace
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.formats.csv_text import Row, read_rows
from penstock.formats.sources import Source, show

# LLM inference 2023, a row per request; Functions 2021, a row per call; Functions 2019, a row
# per function, followed by its calls in minute 1, 2, ….
REQUESTS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
CALLS = ("app", "func", "end_timestamp", "duration")
COUNTS = ("HashOwner", "HashApp", "HashFunction", "Trigger")

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?", re.ASCII)
_SECONDS = re.compile(r"\d{0,12}\.?\d{1,30}(?:[eE][+-]?\d{1,2})?", re.ASCII)
_MOST_SECONDS = 1e12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def read_requests(text: str, source: str) -> RequestTrace:
    """Read a trace of LLM inference; its rows may come in any order.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidTrace)
    instants = sorted(_timestamp_us(row) for row in read_rows(text, where, REQUESTS))
    return RequestTrace(tuple(instant - instants[0] for instant in instants))


def read_calls(text: str, source: str) -> CallTrace:
    """Read a trace of Functions 2021: a call came when it ended less what it took.

    The first to come need not be the first to end, nor has it come after the trace began; time
    counts from it.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    calls: dict[str, list[Micros]] = {}
    for row in read_rows(text, Source(source, InvalidTrace), CALLS):
        seconds = _seconds(row, "end_timestamp") - _seconds(row, "duration")
        name = f"{row.cells['app']}/{row.cells['func']}"
        calls.setdefault(name, []).append(round(seconds * US_PER_SECOND))
    first_us = min((min(instants) for instants in calls.values()), default=0)
    return CallTrace(
        tuple(
            FunctionCalls(name, tuple(sorted(instant - first_us for instant in instants)))
            for name, instants in calls.items()
        )
    )


def read_counts(text: str, source: str, minutes: Sequence[str]) -> CountTrace:
    """Read a trace of Functions 2019.

    Args:
        text: the whole file.
        source: how the user knows it.
        minutes: what its header holds after the four names.

    Raises:
        InvalidTrace: the first thing that is wrong, and where.
    """
    where = Source(source, InvalidTrace)
    for number, minute in enumerate(minutes, 1):
        if minute != str(number):
            raise where.invalid("line 1", f"minute {number} as column {number + 4}", show(minute))
    if not minutes:
        raise where.invalid("line 1", f"minutes from 1 after {COUNTS[-1]!r}", "none")
    return CountTrace(
        tuple(
            FunctionCounts(
                "/".join(row.cells[each] for each in COUNTS),
                tuple(row.integer(minute) for minute in minutes),
            )
            for row in read_rows(text, where, (*COUNTS, *minutes))
        )
    )


def _timestamp_us(row: Row) -> Micros:
    """Return the instant of a request; what is finer than a microsecond is cut off."""
    text = row.cells["TIMESTAMP"]
    for tokens in REQUESTS[1:]:
        row.integer(tokens)
    try:
        if not _TIMESTAMP.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        expected = "a time such as '2023-11-16 18:15:46.6805900'"
        raise row.source.invalid(row.place("TIMESTAMP"), expected, show(text)) from None
    return (moment - _EPOCH) // _MICROSECOND


def _seconds(row: Row, column: str) -> float:
    text = row.cells[column]
    if not _SECONDS.fullmatch(text) or float(text) > _MOST_SECONDS:
        expected = f"seconds, from 0 to {_MOST_SECONDS:g}"
        raise row.source.invalid(row.place(column), expected, show(text))
    return float(text)

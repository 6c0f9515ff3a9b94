"""Traces of the Azure Public Dataset: rows made up here, and one published file where it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from penstock.domain.arrivals import (
    CallTrace,
    CountTrace,
    FunctionCalls,
    FunctionCounts,
    ModelTrace,
    RequestTrace,
)
from penstock.domain.errors import InvalidTrace
from penstock.formats.traces import read_any_trace

DATA = Path(__file__).parents[3].parent / "shared" / "reference" / "azure"
PUBLISHED = DATA / "AzureLLMInferenceTrace_conv.csv"
needs_data = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no published trace in {DATA}")

REQUESTS = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2024-02-29 23:59:59.9999990,40,7\r\n"
    "2024-02-29 23:59:59.5000009,12,1\r\n"
    "2024-03-01 00:00:00,9,0\r\n"
)
CALLS = """\
app,func,end_timestamp,duration
a1,f1,2.5,3
a1,f2,0.25,0.125
a1,f1,1,1e-06
a2,f1,.5,0
"""
COUNTS = """\
HashOwner,HashApp,HashFunction,Trigger,1,2,3
o1,a1,f1,http,2,0,1
o1,a1,f1,timer,0,0,0
"""


def test_requests_come_unsorted_and_finer_than_a_microsecond() -> None:
    assert read_any_trace(REQUESTS, "llm.csv") == RequestTrace((0, 499_999, 500_000))


def test_a_call_came_when_it_ended_less_what_it_took() -> None:
    # At -0.5, 0.125, 0.999999 and 0.5 s; the first of them starts the trace.
    assert read_any_trace(CALLS, "calls.csv") == CallTrace(
        (
            FunctionCalls("a1/f1", (0, 1_499_999)),
            FunctionCalls("a1/f2", (625_000,)),
            FunctionCalls("a2/f1", (1_000_000,)),
        )
    )


def test_calls_are_counted_by_the_minute() -> None:
    assert read_any_trace(COUNTS, "counts.csv") == CountTrace(
        (
            FunctionCounts("o1/a1/f1/http", (2, 0, 1)),
            FunctionCounts("o1/a1/f1/timer", (0, 0, 0)),
        )
    )


def test_our_own_trace_is_known_too() -> None:
    assert read_any_trace("arrival_us,model,samples\n", "trace.csv") == ModelTrace(())


@pytest.mark.parametrize("text", [REQUESTS, CALLS, COUNTS], ids=["requests", "calls", "counts"])
def test_line_ends_and_byte_order_marks_make_no_difference(text: str) -> None:
    plain = text.replace("\r\n", "\n")
    assert read_any_trace("\ufeff" + plain.replace("\n", "\r\n"), "x") == read_any_trace(plain, "x")


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        (REQUESTS, RequestTrace(())),
        (CALLS, CallTrace(())),
        (COUNTS, CountTrace(())),
    ],
    ids=["requests", "calls", "counts"],
)
def test_a_header_alone_is_an_empty_trace(text: str, empty: object) -> None:
    assert read_any_trace(text.partition("\n")[0] + "\n", "x") == empty


TIME = "a time such as '2023-11-16 18:15:46.6805900'"
SECONDS = "seconds, from 0 to 1e+12"
COUNT = "an integer of at least 0, at most 64 bits"


@pytest.mark.parametrize(
    ("text", "old", "new", "place", "expected", "found"),
    [
        (REQUESTS, "2024-03-01 00:00:00,", "2024-02-30 00:00:00,", "line 4, TIMESTAMP", TIME, "'2"),
        (REQUESTS, "2024-03-01 00:00:00,", "2024-03-01,", "line 4, TIMESTAMP", TIME, "'2024-03-01"),
        (REQUESTS, "2024-03-01 00:00:00,", "17000,", "line 4, TIMESTAMP", TIME, "'17000'"),
        (REQUESTS, ",12,1", ",x,1", "line 3, ContextTokens", COUNT, "'x'"),
        (REQUESTS, ",40,7", ",40,-7", "line 2, GeneratedTokens", COUNT, "'-7'"),
        (REQUESTS, ",40,7", ",40", "line 2", "3 cells", "2"),
        (CALLS, "0.25", "nan", "line 3, end_timestamp", SECONDS, "'nan'"),
        (CALLS, "0.25", "", "line 3, end_timestamp", SECONDS, "''"),
        (CALLS, "0.25", "1e99", "line 3, end_timestamp", SECONDS, "'1e99'"),
        (CALLS, "0.125", "-1", "line 3, duration", SECONDS, "'-1'"),
        (CALLS, "a2,f1,", "a2,", "line 5", "4 cells", "3"),
        (COUNTS, "2,0,1\n", "2,0.5,1\n", "line 2, 2", COUNT, "'0.5'"),
        (COUNTS, "timer,0,0,0", "timer,0,0,", "line 3, 3", COUNT, "''"),
        (COUNTS, "timer,0,0,0", "timer,0,0", "line 3", "7 cells", "6"),
        (COUNTS, "1,2,3", "1,3,2", "line 1", "minute 2 as column 6", "'3'"),
        (COUNTS, ",1,2,3", "", "line 1", "minutes from 1 after 'Trigger'", "none"),
        (COUNTS, "HashOwner,", "", "line 1", "one of the headers 'arrival_us,", "'HashApp,"),
        (CALLS, "app,func", "func,app", "line 1", "'app,func,end_timestamp,duration'", "'func,"),
    ],
)
def test_a_bad_trace_gets_one_clear_line(
    text: str, old: str, new: str, place: str, expected: str, found: str
) -> None:
    assert text.count(old) == 1
    with pytest.raises(InvalidTrace) as caught:
        read_any_trace(text.replace(old, new), "trace.csv")
    assert (caught.value.source, caught.value.place) == ("trace.csv", place)
    assert expected in caught.value.expected
    assert caught.value.found.startswith(found)


@pytest.mark.parametrize("text", ["", "\n", "\x00", '"', "a,b\n1,2\n"])
def test_what_is_no_trace_is_told_the_known_headers(text: str) -> None:
    with pytest.raises(InvalidTrace, match=r"x: line 1: expected one of the headers 'arrival_us,"):
        read_any_trace(text, "x")


@needs_data
def test_the_published_conversations_have_their_published_figures() -> None:
    trace = read_any_trace(PUBLISHED.read_text(encoding="utf-8"), str(PUBLISHED))
    assert isinstance(trace, RequestTrace)
    gaps = [after - before for before, after in itertools.pairwise(trace.instants)]
    mean = sum(gaps) / len(gaps)
    cv = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    assert len(trace.instants) == 19_366
    assert 1e6 / mean == pytest.approx(5.53, abs=0.01)
    assert cv == pytest.approx(1.09, abs=0.01)

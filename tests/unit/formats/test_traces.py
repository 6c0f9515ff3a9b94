from __future__ import annotations

import pytest

from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidTrace
from penstock.domain.ids import ModelName
from penstock.formats.traces import read_trace, write_trace

TRACE = """\
arrival_us,model,samples,slo_us
0,digits,1,
0,bert,4,50000
250,digits,1,
"""
DIGITS, BERT = ModelName("digits"), ModelName("bert")
ARRIVALS = (
    Arrival(arrival_us=0, model=DIGITS),
    Arrival(arrival_us=0, model=BERT, samples=4, slo_us=50_000),
    Arrival(arrival_us=250, model=DIGITS),
)


def test_reads_and_writes_arrivals() -> None:
    assert read_trace(TRACE, "trace.csv") == ARRIVALS
    assert write_trace(ARRIVALS) == TRACE


def test_the_slo_column_is_left_out_when_no_arrival_has_one() -> None:
    assert write_trace(ARRIVALS[::2]) == "arrival_us,model,samples\n0,digits,1\n250,digits,1\n"
    assert read_trace(write_trace(ARRIVALS[::2]), "trace.csv") == ARRIVALS[::2]


def test_an_empty_trace_is_a_header() -> None:
    assert read_trace(write_trace(()), "trace.csv") == ()


@pytest.mark.parametrize(
    ("old", "new", "place", "expected", "found"),
    [
        ("250,", "-1,", "line 4, arrival_us", "an integer of at least 0", "'-1'"),
        ("250,", "2.5,", "line 4, arrival_us", "an integer of at least 0", "'2.5'"),
        ("0,bert", "300,bert", "line 4, arrival_us", "in order, so at least 300", "250"),
        ("bert,4", "bert,0", "line 3, samples", "an integer of at least 1", "'0'"),
        ("50000", "0", "line 3, slo_us", "an integer of at least 1", "'0'"),
        ("bert", "", "line 3, model", "a name of letters", "''"),
        ("bert,4,50000", "bert,4", "line 3", "4 cells", "3"),
        ("arrival_us", "arrival_ms", "line 1", "'arrival_us,model,samples' or 'arr", "'arrival_ms"),
    ],
)
def test_a_bad_trace_gets_one_clear_line(
    old: str, new: str, place: str, expected: str, found: str
) -> None:
    with pytest.raises(InvalidTrace) as caught:
        read_trace(TRACE.replace(old, new), "trace.csv")
    assert (caught.value.source, caught.value.place) == ("trace.csv", place)
    assert expected in caught.value.expected
    assert found in caught.value.found

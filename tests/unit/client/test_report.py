"""Report maths on loads with known numbers."""

from __future__ import annotations

import csv
import io
import json

from rich.console import Console

from client.outcomes import NOT_SENT, OK, LoadResult, RequestOutcome, write_outcomes
from client.report import report_json, report_of, report_table, warnings_of
from penstock.domain.ids import ModelName


def an_outcome(
    number: int, latency_us: int = 10_000, *, status: str = OK, lag_us: int = 0, samples: int = 1
) -> RequestOutcome:
    intended_us = number * 10_000
    return RequestOutcome(
        number=number,
        model=ModelName("m"),
        samples=samples,
        first_row=0,
        slo_us=50_000,
        intended_us=intended_us,
        sent_us=intended_us + lag_us,
        ended_us=intended_us + latency_us,
        status=status,
    )


def a_result(*outcomes: RequestOutcome, duration_us: int = 1_000_000) -> LoadResult:
    return LoadResult(outcomes=outcomes, duration_us=duration_us)


def test_numbers_of_a_known_load() -> None:
    answered = [an_outcome(number, (number + 1) * 1_000) for number in range(80)]
    refused = [an_outcome(80 + number, status="RESOURCE_EXHAUSTED") for number in range(15)]
    expired = [an_outcome(95 + number, status="DEADLINE_EXCEEDED") for number in range(5)]
    report = report_of(a_result(*answered, *refused, *expired, duration_us=2_000_000))
    summary = report.summary
    assert (summary.requests, report.sent, summary.answered, summary.in_time) == (100, 100, 80, 50)
    assert summary.attainment == 0.5
    assert (summary.offered_rps, report.answered_rps, summary.goodput_rps) == (50.0, 40.0, 25.0)
    assert (summary.p50_ms, summary.p95_ms, summary.p99_ms) == (40.0, 76.0, 80.0)
    assert summary.refusals == {"RESOURCE_EXHAUSTED": 15, "DEADLINE_EXCEEDED": 5}
    assert warnings_of(report) == []


def test_rates_count_samples() -> None:
    report = report_of(a_result(an_outcome(0, samples=4), an_outcome(1, 60_000, samples=2)))
    summary = report.summary
    assert (summary.offered_rps, report.answered_rps, summary.goodput_rps) == (6.0, 6.0, 4.0)


def test_latency_counts_from_the_intended_send() -> None:
    late = an_outcome(0, 60_000, lag_us=55_000)
    assert (late.latency_us, late.send_lag_us) == (60_000, 55_000)
    assert report_of(a_result(late)).summary.in_time == 0


def test_a_load_without_an_answer_has_no_percentiles() -> None:
    report = report_of(a_result(an_outcome(0, status="UNAVAILABLE")))
    assert (report.summary.p50_ms, report.summary.attainment) == (None, 0.0)
    assert json.loads(json.dumps(report_json(report)))["p99_ms"] is None


def test_what_was_never_sent_lowers_attainment_and_is_told() -> None:
    report = report_of(a_result(an_outcome(0), an_outcome(1, status=NOT_SENT)))
    assert (report.sent, report.summary.requests, report.summary.attainment) == (1, 2, 0.5)
    assert warnings_of(report) == ["1 requests were never sent: this sender could not keep up"]


def test_a_late_sender_is_told() -> None:
    outcomes = [an_outcome(number, lag_us=100 * number) for number in range(100)]
    report = report_of(a_result(*outcomes))
    assert (report.send_lag_p50_ms, report.send_lag_p99_ms) == (4.9, 9.8)
    assert report.send_lag_max_ms == 9.9
    assert warnings_of(report) == [
        "requests left late (9.8 ms at p99): part of the latency is the sender's own"
    ]


def test_json_is_flat_and_complete() -> None:
    values = report_json(report_of(a_result(an_outcome(0))))
    assert values.keys() == {
        *("requests", "answered", "in_time", "attainment", "offered_rps", "goodput_rps"),
        *("p50_ms", "p95_ms", "p99_ms", "refusals", "duration_s", "sent", "answered_rps"),
        *("send_lag_p50_ms", "send_lag_p99_ms", "send_lag_max_ms"),
    }


def test_the_table_says_it_all() -> None:
    outcomes = [an_outcome(0), an_outcome(1, status="UNAVAILABLE")]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report_table(report_of(a_result(*outcomes)), "m at here"))
    shown = console.export_text()
    for words in ("m at here", "attainment", "50.00%", "refused: UNAVAILABLE", "10.00 ms"):
        assert words in shown


def test_outcomes_as_csv() -> None:
    outcomes = [an_outcome(3, lag_us=7), an_outcome(4, status="UNAVAILABLE")]
    rows = list(csv.DictReader(io.StringIO(write_outcomes(outcomes))))
    assert [row["status"] for row in rows] == ["OK", "UNAVAILABLE"]
    assert rows[0]["latency_us"] == "10000"
    assert rows[0]["sent_us"] == "30007"

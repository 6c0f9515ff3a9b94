"""What a load says about the server: numbers, a table for people, a document for programs.

Knows nothing of how the load was sent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from client.outcomes import NOT_SENT, LoadResult
from penstock.domain.outcomes import Summary, quantile_ms, summarise
from penstock.domain.units import US_PER_SECOND

if TYPE_CHECKING:
    from rich.table import Table

# A sender this late distorts what it measures; people should know.
_LATE_SENDER_MS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """A load in numbers.

    Attributes:
        summary: counts, rates and latencies. Attainment counts every request the load meant to
            send, so neither refusals nor a slow sender can raise it.
        duration_s: time over which the requests were offered.
        sent: requests that left this sender.
        answered_rps: samples answered, in time or not, per second of that time.
        send_lag_p50_ms, send_lag_p99_ms, send_lag_max_ms: how much later than intended
            requests were sent; part of their latency already.
    """

    summary: Summary
    duration_s: float
    sent: int
    answered_rps: float
    send_lag_p50_ms: float
    send_lag_p99_ms: float
    send_lag_max_ms: float


def report_of(result: LoadResult) -> LoadReport:
    """Count a load that has ended."""
    seconds = result.duration_us / US_PER_SECOND
    lags = sorted(each.send_lag_us for each in result.outcomes)
    return LoadReport(
        summary=summarise(result.as_outcomes(), result.duration_us),
        duration_s=seconds,
        sent=sum(each.status != NOT_SENT for each in result.outcomes),
        answered_rps=sum(each.samples for each in result.outcomes if each.answered) / seconds,
        send_lag_p50_ms=quantile_ms(lags, 0.50) or 0.0,
        send_lag_p99_ms=quantile_ms(lags, 0.99) or 0.0,
        send_lag_max_ms=quantile_ms(lags, 1.0) or 0.0,
    )


def report_json(report: LoadReport) -> dict[str, object]:
    """Return the report as plain values on one level, for programs."""
    values = asdict(report)
    summary = values.pop("summary")
    return {**summary, **values}


def report_table(report: LoadReport, title: str) -> Table:
    """Return the report as a table for people."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for name, value, note in report_lines(report):
        table.add_row(name, value, note)
    return table


def report_lines(report: LoadReport) -> list[tuple[str, str, str]]:
    """Return the report as lines of name, value and remark."""
    summary = report.summary
    lines = [
        ("offered", f"{summary.offered_rps:,.1f}/s", f"{report.duration_s:g} s"),
        ("sent", f"{report.sent:,}", f"of {summary.requests:,}"),
        ("answered", f"{summary.answered:,}", f"{report.answered_rps:,.1f}/s"),
        ("answered within SLO", f"{summary.in_time:,}", ""),
        ("attainment", f"{summary.attainment:.2%}", "within SLO, of all offered"),
        ("goodput", f"{summary.goodput_rps:,.1f}/s", "within SLO"),
        ("latency p50", _ms(summary.p50_ms), "of the answered"),
        ("latency p95", _ms(summary.p95_ms), ""),
        ("latency p99", _ms(summary.p99_ms), ""),
    ]
    lines += [
        (f"refused: {cause}", f"{number:,}", f"{number / summary.requests:.2%}")
        for cause, number in sorted(summary.refusals.items(), key=lambda each: (-each[1], each[0]))
    ]
    lines.append(("send lag p99", _ms(report.send_lag_p99_ms), "counted in the latencies"))
    return lines


def warnings_of(report: LoadReport) -> list[str]:
    """Return what makes the numbers doubtful, one line each."""
    doubts: list[str] = []
    unsent = report.summary.refusals.get(NOT_SENT, 0)
    if unsent:
        doubts.append(f"{unsent} requests were never sent: this sender could not keep up")
    if report.send_lag_p99_ms > _LATE_SENDER_MS:
        late = f"{report.send_lag_p99_ms:.1f} ms at p99"
        doubts.append(f"requests left late ({late}): part of the latency is the sender's own")
    return doubts


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f} ms"

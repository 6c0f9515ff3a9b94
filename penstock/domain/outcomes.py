"""How requests ended and what instances did. Shared by live load and simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.ids import BatchId, InstanceId, ModelName
from penstock.domain.units import US_PER_SECOND, Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request, seen from the client.

    Attributes:
        arrival_us: intended send instant, from the start of the run.
        latency_us: from that instant to the answer; None if there was none.
        cause: why there was none; empty for an answer.
    """

    model: ModelName
    arrival_us: Micros
    samples: int
    slo_us: Micros
    latency_us: Micros | None
    cause: str = ""

    @property
    def in_time(self) -> bool:
        """Whether it was answered within its SLO."""
        return self.latency_us is not None and self.latency_us <= self.slo_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One batch at one instance, from start to end of its computation."""

    instance: InstanceId
    stage: int
    batch: BatchId
    samples: int
    start_us: Micros
    end_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run says. Rates count samples per second of the offered span.

    Attributes:
        attainment: requests answered within their SLO, of all sent; 1.0 for none sent.
        p50_ms, p95_ms, p99_ms: of answered requests; None without any.
        refusals: requests without an answer, by cause.
    """

    requests: int
    answered: int
    in_time: int
    attainment: float
    offered_rps: float
    goodput_rps: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    refusals: Mapping[str, int]


def summarise(outcomes: Sequence[Outcome], span_us: Micros) -> Summary:
    """Count a run.

    Args:
        outcomes: in any order.
        span_us: time over which the load was offered, above 0.
    """
    latencies = sorted(each.latency_us for each in outcomes if each.latency_us is not None)
    in_time = [each for each in outcomes if each.in_time]
    seconds = span_us / US_PER_SECOND
    return Summary(
        requests=len(outcomes),
        answered=len(latencies),
        in_time=len(in_time),
        attainment=len(in_time) / len(outcomes) if outcomes else 1.0,
        offered_rps=sum(each.samples for each in outcomes) / seconds,
        goodput_rps=sum(each.samples for each in in_time) / seconds,
        p50_ms=quantile_ms(latencies, 0.50),
        p95_ms=quantile_ms(latencies, 0.95),
        p99_ms=quantile_ms(latencies, 0.99),
        refusals=dict(Counter(each.cause for each in outcomes if each.latency_us is None)),
    )


def quantile_ms(sorted_us: Sequence[Micros], quantile: float) -> float | None:
    """Return the nearest-rank quantile in milliseconds, or None of an empty sequence."""
    if not sorted_us:
        return None
    rank = max(1, math.ceil(quantile * len(sorted_us)))
    return sorted_us[rank - 1] / 1_000

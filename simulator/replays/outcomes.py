"""What became of the requests of a run log, counted as it is read, in constant memory.

Attainment and latencies are those the dispatcher saw: from a request's arrival there to its end.
A client sees the network on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Summary
from penstock.domain.requests import Request
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.scheduling.effects import CompleteRequest, DropRequest

_BITS = 11  # of a latency that are kept: quantiles are exact to 0.05 %


class LatencyCounts:
    """How often each latency was seen, rounded so that there are few different ones."""

    def __init__(self) -> None:
        self._counts: Counter[Micros] = Counter()

    def add(self, latency_us: Micros) -> None:
        """Count one, of at least 0."""
        shift = max(0, latency_us.bit_length() - _BITS)
        self._counts[(latency_us >> shift << shift) + (1 << shift >> 1)] += 1

    def quantile_ms(self, quantile: float) -> float | None:
        """Return the nearest-rank quantile in milliseconds, or None if none was counted."""
        rank = max(1, -int(-quantile * self._counts.total() // 1))
        for latency_us, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return latency_us / 1_000
        return None


class OutcomeCounts:
    """Outcomes of some requests."""

    def __init__(self) -> None:
        self._requests = self._answered = self._in_time = 0
        self._samples = self._samples_in_time = 0
        self._causes: Counter[str] = Counter()
        self._latencies = LatencyCounts()

    def add(self, request: Request, now_us: Micros, end: CompleteRequest | DropRequest) -> None:
        """Count one that ends now."""
        self._requests += 1
        self._samples += request.samples
        if isinstance(end, DropRequest):
            self._causes[end.reason.value] += 1
            return
        self._answered += 1
        self._latencies.add(max(0, now_us - request.arrival_us))
        if end.met_deadline:
            self._in_time += 1
            self._samples_in_time += request.samples

    def summary(self, span_us: Micros) -> Summary:
        """Return the figures, with rates over this time."""
        seconds = max(1, span_us) / US_PER_SECOND
        return Summary(
            requests=self._requests,
            answered=self._answered,
            in_time=self._in_time,
            attainment=self._in_time / self._requests if self._requests else 1.0,
            offered_rps=self._samples / seconds,
            goodput_rps=self._samples_in_time / seconds,
            p50_ms=self._latencies.quantile_ms(0.50),
            p95_ms=self._latencies.quantile_ms(0.95),
            p99_ms=self._latencies.quantile_ms(0.99),
            refusals=dict(self._causes),
        )


class LogOutcomes:
    """Outcomes of all requests of a log, and of each model's."""

    def __init__(self) -> None:
        self.overall = OutcomeCounts()
        self.models: dict[ModelName, OutcomeCounts] = {}
        self._first_us: Micros | None = None
        self._last_us: Micros = 0

    @property
    def offered_us(self) -> Micros:
        """Time from the first arrival to the last."""
        return self._last_us - (self._last_us if self._first_us is None else self._first_us)

    def arrived(self, now_us: Micros) -> None:
        """Note an arrival."""
        self._first_us = now_us if self._first_us is None else self._first_us
        self._last_us = now_us

    def ended(
        self, ends: Iterable[tuple[Request, CompleteRequest | DropRequest]], now_us: Micros
    ) -> None:
        """Count requests that end now."""
        for request, end in ends:
            self.overall.add(request, now_us, end)
            mine = self.models.setdefault(request.model, OutcomeCounts())
            mine.add(request, now_us, end)

from __future__ import annotations

import pytest

from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Outcome, quantile_ms, summarise


def outcome(latency_us: int | None, cause: str = "") -> Outcome:
    return Outcome(
        model=ModelName("m"),
        arrival_us=0,
        samples=2,
        slo_us=50_000,
        latency_us=latency_us,
        cause=cause,
    )


def test_a_run_is_counted() -> None:
    outcomes = [outcome(50_000), outcome(50_001), outcome(None, "shed"), outcome(None, "shed")]
    summary = summarise(outcomes, 2_000_000)
    assert (summary.requests, summary.answered, summary.in_time) == (4, 2, 1)
    assert summary.attainment == pytest.approx(0.25)
    assert summary.offered_rps == pytest.approx(4.0)
    assert summary.goodput_rps == pytest.approx(1.0)
    assert summary.refusals == {"shed": 2}


def test_nothing_sent_misses_nothing() -> None:
    summary = summarise([], 1)
    assert summary.attainment == 1.0
    assert summary.p99_ms is None


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_quantiles_are_of_the_nearest_rank(quantile: float, expected: int) -> None:
    assert quantile_ms([n * 1_000 for n in range(1, 101)], quantile) == expected

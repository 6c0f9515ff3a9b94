"""The serving bench: what it concludes from its figures."""

from __future__ import annotations

import os

import pytest

from bench import overhead
from bench.closed_loop import Measured
from bench.processes import family, processor_us, resident_bytes
from bench.serving import Point
from penstock.domain.errors import InvalidSettings


def a_point(rate_rps: int, *, stream: bool) -> Point:
    measured = Measured(latencies_us=[1_000] * rate_rps, span_us=1_000_000, processor_us=rate_rps)
    return Point(
        payload_bytes=1024,
        stream=stream,
        callers=32,
        measured=measured,
        processor_us={"client": 1.0},
        batch=None,
    )


def test_bars_are_judged_by_the_figures() -> None:
    good = overhead.summary([a_point(1_600, stream=False), a_point(3_300, stream=True)], {})
    assert good["bars_met"] == {"unary_c32_rps": True, "stream_over_unary": True}
    bad = overhead.summary(
        [a_point(1_400, stream=False), a_point(2_000, stream=True)],
        {"metrics_cost": 0.06, "growth": {"frontend": 0.03, "worker": 0.0}, "soak_unanswered": 1},
    )
    assert not any(bad["bars_met"].values())
    assert len(bad["bars_met"]) == 5


def test_growth_counts_from_when_memory_has_settled() -> None:
    samples = [{"a": 50 + min(each, 20), "b": 100} for each in range(100)]
    assert overhead.growth(samples) == {"a": 0.0, "b": 0.0}
    leaking = [{"a": 1_000 + each} for each in range(101)]
    assert overhead.growth(leaking)["a"] > 0.05


@pytest.mark.parametrize("text", ["", "1,,2", "0", "x", "6"])
def test_lists_of_numbers_are_checked(text: str) -> None:
    with pytest.raises(InvalidSettings):
        overhead.numbers("--payload", text, 4)


def test_quantiles_and_rates_count_answers() -> None:
    measured = Measured(latencies_us=list(range(1, 101)), span_us=2_000_000)
    assert measured.rate_rps == 50
    assert (measured.quantile_ms(0.5), measured.quantile_ms(0.99)) == (0.051, 0.1)


def test_this_process_uses_memory_and_time() -> None:
    me = os.getpid()
    assert family({"me": me})["me"] == me
    assert resident_bytes(me) > 1 << 20
    assert processor_us(me) > 0

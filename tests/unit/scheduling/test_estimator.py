"""Latencies learned from what is seen, and the quantiles of prediction errors."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.estimator import ArrivalRate, PredictionErrors, StageEstimator

PROFILE_US = (10_000, 12_000, 14_000, 16_000)


def test_while_batches_take_what_the_profile_says_the_estimate_is_the_profile() -> None:
    estimator = StageEstimator(PROFILE_US)
    for size, latency_us in enumerate(PROFILE_US, start=1):
        assert not estimator.observe(size, latency_us)
        assert estimator.latency_us(size) == latency_us


def test_a_slower_device_is_slower_at_sizes_never_seen() -> None:
    estimator = StageEstimator(PROFILE_US)
    for _ in range(200):
        assert estimator.observe(4, 24_000)
    assert estimator.latency_us(4) == pytest.approx(24_000, rel=0.01)
    assert estimator.latency_us(1) == pytest.approx(15_000, rel=0.01)


def test_a_size_that_differs_from_the_others_has_an_estimate_of_its_own() -> None:
    estimator = StageEstimator(PROFILE_US)
    for _ in range(200):
        estimator.observe(1, 10_000)
        estimator.observe(2, 18_000)
    assert estimator.latency_us(1) == pytest.approx(10_000, rel=0.06)
    assert estimator.latency_us(2) == pytest.approx(18_000, rel=0.06)


def test_one_straggler_moves_the_estimate_little_once_much_is_known() -> None:
    estimator = StageEstimator(PROFILE_US)
    for _ in range(100):
        estimator.observe(4, 16_001)
    estimator.observe(4, 160_000)
    assert estimator.latency_us(4) < 16_000 * 1.3
    assert estimator.latency_us(1) < 10_000 * 1.2


def test_the_estimate_follows_a_device_that_changes() -> None:
    estimator = StageEstimator(PROFILE_US)
    for latency_us in [16_000] * 300 + [32_000] * 300:
        estimator.observe(4, latency_us)
    assert estimator.latency_us(4) == pytest.approx(32_000, rel=0.02)


def test_jitter_leaves_the_mean() -> None:
    dice = Random(1)
    estimator = StageEstimator(PROFILE_US)
    for _ in range(2_000):
        size = dice.randrange(1, 5)
        estimator.observe(size, round(PROFILE_US[size - 1] * dice.lognormvariate(0, 0.1)))
    for size, latency_us in enumerate(PROFILE_US, start=1):
        assert estimator.latency_us(size) == pytest.approx(latency_us, rel=0.06)


def test_too_few_errors_say_nothing() -> None:
    errors = PredictionErrors()
    for number in range(19):
        errors.add(number)
    assert errors.quantile_us(0.95) is None
    errors.add(19)
    assert errors.quantile_us(0.95) == 18
    assert errors.quantile_us(0.0) == 0
    assert errors.quantile_us(1.0) == 19


@given(st.lists(st.integers(-50_000, 50_000), min_size=20, max_size=600), st.floats(0, 1))
def test_a_quantile_is_that_of_the_latest_errors(all_us: list[int], quantile: float) -> None:
    errors = PredictionErrors()
    for error_us in all_us:
        errors.add(error_us)
    latest = sorted(all_us[-256:])
    found = errors.quantile_us(quantile)
    assert found in latest
    assert sum(each <= found for each in latest) >= quantile * len(latest) - 1e-6


def test_the_rate_of_arrivals_is_that_of_late() -> None:
    rate = ArrivalRate()
    for number in range(4_000):
        rate.add(number * 500, 1)
    assert rate.per_us == pytest.approx(2_000 / 1e6, rel=0.01)
    for number in range(50):  # from 2,000 to 50 a second
        rate.add(2_000_000 + number * 20_000, 1)
    assert rate.per_us < 300 / 1e6
    rate.add(10_000_000, 1)  # then nothing for a while
    assert rate.per_us < 3 / 1e6


def test_too_short_a_time_says_nothing_of_the_rate() -> None:
    rate = ArrivalRate()
    for _ in range(100):
        rate.add(1_000, 8)
    assert rate.per_us == 0.0

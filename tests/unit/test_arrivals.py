"""Arrivals: the right rate, in order, whole microseconds, the same for the same seed."""

from __future__ import annotations

import itertools
import random

import pytest

from penstock.arrivals import constant, poisson
from penstock.domain.errors import InvalidSettings

SECOND = 1_000_000


def test_constant_arrivals_are_evenly_spaced_from_zero() -> None:
    assert constant(4.0, SECOND) == (0, 250_000, 500_000, 750_000)


def test_constant_arrivals_of_an_odd_rate_do_not_drift() -> None:
    instants = constant(3.0, 1_000 * SECOND)
    assert len(instants) == 3_000
    assert instants[-1] == int(2_999 * SECOND / 3)


@pytest.mark.parametrize("rate", [0.5, 7.0, 333.3, 2_000.0])
def test_constant_arrivals_stay_inside_the_duration(rate: float) -> None:
    instants = constant(rate, 4 * SECOND + 1)
    assert instants[0] == 0
    assert instants[-1] <= 4 * SECOND
    assert instants == tuple(sorted(instants))


def test_poisson_arrivals_come_at_the_rate_with_exponential_gaps() -> None:
    instants = poisson(500.0, 100 * SECOND, random.Random(7))
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert len(instants) == pytest.approx(50_000, rel=0.02)
    assert variance**0.5 / mean == pytest.approx(1.0, abs=0.03)  # of an exponential: 1


def test_poisson_arrivals_are_sorted_whole_and_inside_the_duration() -> None:
    instants = poisson(1_000.0, 5 * SECOND, random.Random(1))
    assert all(type(instant) is int for instant in instants)
    assert instants == tuple(sorted(instants))
    assert instants[0] >= 0
    assert instants[-1] < 5 * SECOND


def test_equal_seeds_give_equal_loads() -> None:
    first, again, other = (poisson(100.0, SECOND, random.Random(seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_above_zero(rate: float) -> None:
    with pytest.raises(InvalidSettings, match="load: rate: expected requests per second above 0"):
        constant(rate, SECOND)


def test_a_duration_must_be_above_zero() -> None:
    with pytest.raises(InvalidSettings, match="load: duration"):
        poisson(1.0, 0, random.Random(0))

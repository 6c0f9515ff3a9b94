"""Arrivals: the right rate and spread, in order, whole microseconds, the same for the same seed."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.arrivals import (
    Constant,
    Diurnal,
    Gamma,
    Law,
    Mmpp,
    Poisson,
    constant,
    diurnal,
    gamma,
    instants_of,
    mmpp,
    poisson,
)
from penstock.domain.errors import InvalidSettings

SECOND = 1_000_000

# Of the instants at 200 per second for 20 s, seed 1. A change here changes every load ever drawn.
GOLDEN = {
    Constant(): "bc079697b83b0c99",
    Poisson(): "9a02ae352ae0a096",
    Gamma(4.0): "33dd563a7d07406b",
    Gamma(0.5): "e5d768688a4b300a",
    Mmpp(5.0, 0.1, 2.0): "a5d7efdd93397e3d",
    Diurnal(2.0, 10.0): "0f07919b619330c4",
}


def mean_and_cv(gaps: Sequence[int]) -> tuple[float, float]:
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    return mean, math.sqrt(variance) / mean


def gaps_of(instants: Sequence[int]) -> list[int]:
    return [after - before for before, after in itertools.pairwise(instants)]


def dispersion(instants: Sequence[int], window_us: int, duration_us: int) -> float:
    """Return the variance of the counts in windows, divided by their mean."""
    windows = duration_us // window_us
    counts = Counter(instant // window_us for instant in instants)
    mean = sum(counts[each] for each in range(windows)) / windows
    return sum((counts[each] - mean) ** 2 for each in range(windows)) / windows / mean


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
    instants = poisson(500.0, 200 * SECOND, random.Random(7))
    _, cv = mean_and_cv(gaps_of(instants))
    assert len(instants) == pytest.approx(100_000, rel=0.01)
    assert cv == pytest.approx(1.0, rel=0.03)
    assert dispersion(instants, SECOND // 10, 200 * SECOND) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(("cv", "seconds"), [(4.0, 500), (2.0, 200), (1.0, 100), (0.25, 50)])
def test_gamma_gaps_have_the_rate_and_the_variation_asked_for(cv: float, seconds: int) -> None:
    instants = gamma(1_000.0, seconds * SECOND, cv, random.Random(1))
    mean, found = mean_and_cv(gaps_of(instants))
    assert len(instants) == pytest.approx(1_000 * seconds, rel=0.01)
    assert mean == pytest.approx(1_000.0, rel=0.01)
    assert found == pytest.approx(cv, rel=0.03)


def test_a_gamma_process_is_steady_from_the_start() -> None:
    # Started at an arrival, it would have (CV² - 1) / 2 = 7.5 requests more.
    counts = [len(gamma(10.0, SECOND, 4.0, random.Random(seed))) for seed in range(4_000)]
    assert sum(counts) / len(counts) == pytest.approx(10.0, rel=0.08)


def test_extreme_variation_is_still_a_load() -> None:
    assert len(gamma(100.0, SECOND, 1e-6, random.Random(0))) == pytest.approx(100, abs=1)
    clumped = gamma(100.0, 1_000 * SECOND, 100.0, random.Random(3))
    assert min(gaps_of(clumped)) == 0  # less than a microsecond apart


# Rate 20 per second; bursts of 0.5 s, a fifth of the time, at five times the quiet rate.
MMPP_RATES = (20.0 / (0.2 * 5 + 0.8), 5 * 20.0 / (0.2 * 5 + 0.8))
MMPP_SWITCHING = (0.5, 2.0)  # quiet to burst and back, per second


@pytest.fixture(scope="module")
def bursty() -> tuple[int, ...]:
    return mmpp(20.0, 40_000 * SECOND, burst=5.0, share=0.2, length_s=0.5, dice=random.Random(1))


def test_mmpp_arrivals_come_at_the_rate_asked_for(bursty: tuple[int, ...]) -> None:
    assert len(bursty) == pytest.approx(800_000, rel=0.01)


@pytest.mark.parametrize("window_s", [0.1, 1.0, 5.0])
def test_mmpp_counts_are_dispersed_as_the_closed_formula_says(
    bursty: tuple[int, ...], window_s: float
) -> None:
    (quiet, burst), (into, back) = MMPP_RATES, MMPP_SWITCHING
    both = into + back
    excess = 2 * into * back * (burst - quiet) ** 2 / (both**2 * (burst * into + quiet * back))
    reached = 1 - (1 - math.exp(-both * window_s)) / (both * window_s)
    found = dispersion(bursty, int(window_s * SECOND), 40_000 * SECOND)
    assert found == pytest.approx(1 + excess * reached, rel=0.05)


def test_mmpp_without_bursts_is_poisson() -> None:
    instants = mmpp(1_000.0, 100 * SECOND, 1.0, 0.5, 0.1, random.Random(1))
    assert mean_and_cv(gaps_of(instants))[1] == pytest.approx(1.0, rel=0.03)


def test_diurnal_arrivals_follow_the_day_and_keep_the_mean() -> None:
    instants = diurnal(500.0, 400 * SECOND, peak=1.8, period_s=100.0, dice=random.Random(1))
    assert len(instants) == pytest.approx(200_000, rel=0.01)
    tenths = Counter(instant % (100 * SECOND) // (10 * SECOND) for instant in instants)
    for tenth in range(10):
        ends = (math.sin(2 * math.pi * edge / 10) for edge in (tenth + 1, tenth))
        expected = 20_000 * (1 - 0.8 * (next(ends) - next(ends)) / (2 * math.pi / 10))
        assert tenths[tenth] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("law", "digest"), GOLDEN.items(), ids=str)
def test_equal_seeds_give_equal_loads_for_ever(law: Law, digest: str) -> None:
    instants = instants_of(law, 200.0, 20 * SECOND, random.Random(1))
    assert hashlib.sha256(repr(instants).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("law", [law for law in GOLDEN if law != Constant()], ids=str)
def test_other_seeds_give_other_loads(law: Law) -> None:
    one, other = (instants_of(law, 200.0, SECOND, random.Random(seed)) for seed in (3, 4))
    assert one != other


LAWS = st.one_of(
    st.just(Constant()),
    st.just(Poisson()),
    st.builds(Gamma, st.floats(1e-6, 1e3)),
    st.builds(Mmpp, st.floats(1, 1e6), st.floats(0.001, 0.999), st.floats(0.001, 1e9)),
    st.builds(Diurnal, st.floats(1, 2), st.floats(0.001, 1e9)),
)


@given(LAWS, st.floats(0.01, 2_000), st.integers(1, 2 * SECOND), st.integers(0, 9))
def test_instants_are_sorted_whole_and_inside_the_duration(
    law: Law, rate: float, duration_us: int, seed: int
) -> None:
    instants = instants_of(law, rate, duration_us, random.Random(seed))
    assert all(type(instant) is int for instant in instants)
    assert list(instants) == sorted(instants)
    assert all(0 <= instant < duration_us for instant in instants)


@pytest.mark.parametrize("law", GOLDEN, ids=str)
@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_must_be_above_zero(law: Law, rate: float) -> None:
    with pytest.raises(InvalidSettings, match="load: rate: expected requests per second above 0"):
        instants_of(law, rate, SECOND, random.Random(0))


def test_a_duration_must_be_above_zero() -> None:
    with pytest.raises(InvalidSettings, match="load: duration"):
        poisson(1.0, 0, random.Random(0))


def test_a_load_that_fits_no_memory_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="at most 20,000,000 requests in all, found 1e\\+09"):
        constant(1e9, SECOND)

"""Arrival processes: instants of an open-loop load, in integer microseconds from its start.

Pure: the caller brings the dice, so that equal seeds give equal loads in the simulator and live.
Dice are asked for nothing but uniform numbers, which Python promises to keep for a seed; other
distributions of `random.Random` may change with its version, so they are drawn here. Random
processes with a steady state start in it: not at an arrival, and in a burst only by chance.

Knows nothing of models, requests or traces.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from penstock.domain.errors import InvalidSettings
from penstock.domain.units import US_PER_SECOND, Micros

# A load is held in memory; more than this is a slip of the pen, and would not fit.
MOST_REQUESTS = 20_000_000


class Dice(Protocol):
    """A source of uniform numbers; `random.Random` is one."""

    def random(self) -> float:
        """Return the next number in [0, 1)."""
        ...


def constant(rate_rps: float, duration_us: Micros) -> tuple[Micros, ...]:
    """Return evenly spaced instants in [0, duration), the first at 0.

    Args:
        rate_rps: arrivals per second, above 0.
        duration_us: length of the load.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    _check(rate_rps, duration_us)
    gap_us = US_PER_SECOND / rate_rps
    instants = (int(number * gap_us) for number in range(math.ceil(duration_us / gap_us)))
    return tuple(instant for instant in instants if instant < duration_us)


def poisson(rate_rps: float, duration_us: Micros, dice: Dice) -> tuple[Micros, ...]:
    """Return the instants of a Poisson process in [0, duration).

    Args:
        rate_rps: mean arrivals per second, above 0.
        duration_us: length of the load.
        dice: asked once for each gap.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    _check(rate_rps, duration_us)
    mean_gap_us = US_PER_SECOND / rate_rps
    instants: list[Micros] = []
    now_us = _exponential(dice) * mean_gap_us
    while now_us < duration_us:
        instants.append(int(now_us))
        now_us += _exponential(dice) * mean_gap_us
    return tuple(instants)


def gamma(rate_rps: float, duration_us: Micros, cv: float, dice: Dice) -> tuple[Micros, ...]:
    """Return the instants of a renewal process with gamma-distributed gaps, in [0, duration).

    Gaps have shape κ = 1/CV² and mean 1/rate. Gamma(κ) is drawn as Gamma(κ + 1) · U^(1/κ), which
    holds for every κ above 0. The wait for the first arrival is U · Gamma(κ + 1): what is left of
    the gap that the start of the load falls into, and longer gaps are met more often.

    Args:
        rate_rps: mean arrivals per second, above 0.
        duration_us: length of the load.
        cv: standard deviation of the gaps divided by their mean, above 0.
        dice: asked as often as it takes.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    _check(rate_rps, duration_us)
    shape = cv**-2
    unit_us = US_PER_SECOND / rate_rps / shape
    draws = _gammas(shape + 1.0, dice)
    instants: list[Micros] = []
    now_us = next(draws) * dice.random() * unit_us
    while now_us < duration_us:
        instants.append(int(now_us))
        now_us += next(draws) * (1.0 - dice.random()) ** (1.0 / shape) * unit_us
    return tuple(instants)


def mmpp(
    rate_rps: float, duration_us: Micros, burst: float, share: float, length_s: float, dice: Dice
) -> tuple[Micros, ...]:
    """Return the instants in [0, duration) of a Poisson process whose rate has two levels.

    Bursts and the quiet between them last exponentially distributed times. The quiet rate is
    rate / (share · burst + 1 - share); quiet lasts length · (1 - share) / share on average.

    Args:
        rate_rps: mean arrivals per second over both levels, above 0.
        duration_us: length of the load.
        burst: rate in a burst divided by the quiet rate.
        share: part of the time that is in bursts.
        length_s: mean length of a burst.
        dice: asked as often as it takes.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    _check(rate_rps, duration_us)
    quiet_gap_us = US_PER_SECOND / rate_rps * (share * burst + 1.0 - share)
    burst_us = length_s * US_PER_SECOND
    levels = ((burst_us * (1.0 - share) / share, quiet_gap_us), (burst_us, quiet_gap_us / burst))
    instants: list[Micros] = []
    start_us, bursting = 0.0, dice.random() < share
    while start_us < duration_us:
        mean_us, gap_us = levels[bursting]
        end_us = min(duration_us, start_us + _exponential(dice) * mean_us)
        now_us = start_us + _exponential(dice) * gap_us
        while now_us < end_us:
            instants.append(int(now_us))
            now_us += _exponential(dice) * gap_us
        start_us, bursting = end_us, not bursting
    return tuple(instants)


def diurnal(
    rate_rps: float, duration_us: Micros, peak: float, period_s: float, dice: Dice
) -> tuple[Micros, ...]:
    """Return the instants in [0, duration) of a Poisson process whose rate follows a cosine.

    rate(t) = rate · (1 - (peak - 1) · cos(2πt/period)): starts at the trough, peaks after half a
    period. By thinning: proposed at the peak rate, kept with rate(t) / peak rate.

    Args:
        rate_rps: mean arrivals per second over whole and half periods, above 0.
        duration_us: length of the load.
        peak: highest rate divided by the mean one, from 1 to 2.
        period_s: from trough to trough.
        dice: asked twice for each proposed arrival.

    Raises:
        InvalidSettings: the rate or the duration is not above 0, or both are too much.
    """
    _check(rate_rps, duration_us)
    gap_us = US_PER_SECOND / rate_rps / peak
    radians_per_us = 2.0 * math.pi / (period_s * US_PER_SECOND)
    instants: list[Micros] = []
    now_us = _exponential(dice) * gap_us
    while now_us < duration_us:
        if dice.random() * peak < 1.0 - (peak - 1.0) * math.cos(now_us * radians_per_us):
            instants.append(int(now_us))
        now_us += _exponential(dice) * gap_us
    return tuple(instants)


def _exponential(dice: Dice) -> float:
    return -math.log(1.0 - dice.random())


def _gammas(shape: float, dice: Dice) -> Iterator[float]:
    """Yield gamma variates of scale 1 and a shape of at least 1.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000).
    """
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    for x in _normals(dice):
        cube_root = 1.0 + c * x
        if cube_root <= 0.0:
            continue
        v = cube_root**3
        u = 1.0 - dice.random()
        # The first test is a cheap bound of the second.
        if u < 1.0 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d * (1.0 - v + math.log(v)):
            yield d * v


def _normals(dice: Dice) -> Iterator[float]:
    """Yield standard normal variates, by Marsaglia's polar method."""
    while True:
        x, y = 2.0 * dice.random() - 1.0, 2.0 * dice.random() - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            factor = math.sqrt(-2.0 * math.log(square) / square)
            yield x * factor
            yield y * factor


def _check(rate_rps: float, duration_us: Micros) -> None:
    if not (rate_rps > 0 and math.isfinite(rate_rps)):
        raise InvalidSettings("load", "rate", "requests per second above 0", f"{rate_rps:g}")
    if duration_us <= 0:
        raise InvalidSettings("load", "duration", "a time above 0", f"{duration_us} µs")
    seconds = duration_us / US_PER_SECOND
    if rate_rps * seconds > MOST_REQUESTS:
        expected = f"at most {MOST_REQUESTS:,} requests in all"
        found = f"{rate_rps:g} per second for {seconds:g} s"
        raise InvalidSettings("load", "rate", expected, found)

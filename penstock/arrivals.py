"""When requests arrive: instants of an open-loop load, in integer microseconds from its start.

Pure: the caller brings the dice, so that equal seeds give equal loads in the simulator and live.
Knows nothing of models, requests or traces.
"""

from __future__ import annotations

import math
from typing import Protocol

from penstock.domain.errors import InvalidSettings
from penstock.domain.units import US_PER_SECOND, Micros


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
        InvalidSettings: the rate or the duration is not above 0.
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
        InvalidSettings: the rate or the duration is not above 0.
    """
    _check(rate_rps, duration_us)
    mean_gap_us = US_PER_SECOND / rate_rps
    instants: list[Micros] = []
    now_us = _exponential(dice) * mean_gap_us
    while now_us < duration_us:
        instants.append(int(now_us))
        now_us += _exponential(dice) * mean_gap_us
    return tuple(instants)


def _exponential(dice: Dice) -> float:
    return -math.log(1.0 - dice.random())


def _check(rate_rps: float, duration_us: Micros) -> None:
    if not (rate_rps > 0 and math.isfinite(rate_rps)):
        raise InvalidSettings("load", "rate", "requests per second above 0", f"{rate_rps:g}")
    if duration_us <= 0:
        raise InvalidSettings("load", "duration", "a time above 0", f"{duration_us} µs")

"""How real durations differ from planned ones. Seeded: equal seeds give equal runs.

Each kind of chance draws from a stream of its own, so that turning one on leaves the draws of the
others as they were.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from penstock.domain.plan import Pool
from penstock.domain.units import Micros
from simulator.disturbances import ProfileError, Straggler


def stream(seed: int, *names: str) -> random.Random:
    """Return the generator that this seed has under these names."""
    return random.Random("/".join((str(seed), *names)))


class LogNormalJitter:
    """Multiplies durations by a log-normal factor of mean 1.

    Args:
        sigma: standard deviation of the factor's logarithm; 0 for none.
        dice: its own.
    """

    def __init__(self, sigma: float, dice: random.Random) -> None:
        self._sigma = sigma
        self._mu = -sigma * sigma / 2
        self._dice = dice

    def stretch(self, duration_us: Micros) -> Micros:
        """Return how long something planned to take `duration_us` takes this time."""
        return max(1, round(duration_us * math.exp(self._dice.gauss(self._mu, self._sigma))))


class Stragglers:
    """Multiplies some durations by a factor; counts them.

    Args:
        straggler: how many, and by how much.
        dice: its own.
    """

    def __init__(self, straggler: Straggler, dice: random.Random) -> None:
        self.seen = 0
        self._probability = straggler.probability
        self._factor = straggler.factor
        self._dice = dice

    def stretch(self, duration_us: Micros) -> Micros:
        """Return how long something that would take `duration_us` takes this time."""
        if self._dice.random() >= self._probability:
            return duration_us
        self.seen += 1
        return round(duration_us * self._factor)


def chained(
    first: Callable[[Micros], Micros], second: Callable[[Micros], Micros]
) -> Callable[[Micros], Micros]:
    """Return what does one after the other."""
    return lambda duration_us: second(first(duration_us))


def profile_factor(error: ProfileError | None, pool: Pool, seed: int) -> float:
    """Return by what a pool's profiled latencies are to be multiplied to be the real ones.

    What is drawn depends on the seed and the pool's name alone: not on the plan around it.
    """
    if error is None:
        return 1.0
    for each in error.pools:
        if each.pool == pool.id:
            return each.factor
    if error.sigma == 0:
        return error.factor
    sigma = error.sigma
    drawn = stream(seed, "profile-error", pool.id).gauss(-sigma * sigma / 2, sigma)
    return error.factor * math.exp(drawn)


def real_latencies(pool: Pool, factor: float) -> tuple[Micros, ...]:
    """Return a pool's latencies by batch, multiplied by a factor."""
    if factor == 1:
        return pool.latency_us_by_batch
    return tuple(max(1, round(each * factor)) for each in pool.latency_us_by_batch)

"""How real durations differ from planned ones. Seeded: equal seeds give equal runs."""

from __future__ import annotations

import math
import random

from penstock.domain.units import Micros


class LogNormalJitter:
    """Multiplies durations by a log-normal factor of mean 1.

    Args:
        sigma: standard deviation of the factor's logarithm; 0 for none.
        seed: of its own generator.
    """

    def __init__(self, sigma: float, seed: int) -> None:
        self._sigma = sigma
        self._mu = -sigma * sigma / 2
        self._random = random.Random(seed)

    def stretch(self, duration_us: Micros) -> Micros:
        """Return how long something planned to take `duration_us` takes this time."""
        if self._sigma == 0:
            return duration_us
        return max(1, round(duration_us * math.exp(self._random.gauss(self._mu, self._sigma))))

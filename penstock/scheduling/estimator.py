"""What stages are seen to take, and how far predictions turn out to be off.

A profile is measured once, on one machine, without neighbours; what the fleet does afterwards is
the better witness. Learners that are functions of what they were told and nothing else: the mean
latency of each stage and batch size, the quantiles of the error of whole predictions, and the rate
of arrivals. An error
has many causes that no stage knows of (a queue that moved, a link that was busy, an event loop that
stalled), so the safety of a route comes from the route's own errors, not from a sum over its
stages.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from penstock.domain.units import Micros

_PROFILE_WEIGHT = 4  # observations that the profile counts for
_WINDOW = 64  # observations that count; what is older fades
_SIZE_WEIGHT = 8  # observations after which a batch size is half its own witness
_ERRORS = 256  # predictions remembered
_PROVEN = 20  # predictions after which their errors say something
_STRETCH_US = 250_000  # over which arrivals are counted


class StageEstimator:
    """The mean latency of one stage by batch size: its profile, corrected by what is seen.

    All sizes share one factor, as a slower device is slower at every size; a size that was seen
    often has a factor of its own on top. While each observation equals the profile, so does the
    estimate, to the microsecond.
    """

    __slots__ = ("_exact", "_factor", "_profile_us", "_seen", "_sizes")

    def __init__(self, profile_us: Sequence[Micros]) -> None:
        """Start from a profile: the latency at batch 1, the one at batch 2, and so on."""
        self._profile_us = tuple(profile_us)
        self._exact = True
        self._factor = 1.0
        self._seen = 0
        self._sizes: dict[int, tuple[int, float]] = {}  # observations and factor, by size

    def latency_us(self, size: int) -> Micros:
        """Return the mean latency expected of a batch of `size`, 1 to the profile's greatest."""
        profile_us = self._profile_us[size - 1]
        if self._exact:
            return profile_us
        seen, own = self._sizes.get(size, (0, 1.0))
        own = 1.0 + (own - 1.0) * seen / (seen + _SIZE_WEIGHT)
        return round(profile_us * self._factor * own)

    def observe(self, size: int, compute_us: Micros) -> bool:
        """Learn from a batch of `size`; return whether the estimate may have changed."""
        profile_us = self._profile_us[size - 1]
        if self._exact and compute_us == profile_us:
            return False
        self._exact = False
        ratio = compute_us / max(profile_us, 1)
        self._seen = min(self._seen + 1, _WINDOW)
        self._factor += (ratio - self._factor) / (self._seen + _PROFILE_WEIGHT)
        seen, own = self._sizes.get(size, (0, 1.0))
        seen = min(seen + 1, _WINDOW)
        own += (ratio / max(self._factor, 1e-9) - own) / seen
        self._sizes[size] = (seen, own)
        return True


class PredictionErrors:
    """The latest errors of predicted completions, and their quantiles."""

    __slots__ = ("_latest", "_sorted")

    def __init__(self) -> None:
        self._latest: deque[Micros] = deque()
        self._sorted: list[Micros] = []

    def add(self, error_us: Micros) -> None:
        """Remember one: how much later than predicted a batch was answered."""
        self._latest.append(error_us)
        if len(self._latest) > _ERRORS:
            oldest_us = self._latest.popleft()
            if oldest_us == error_us:  # as good as always where nothing disturbs
                return
            del self._sorted[bisect_left(self._sorted, oldest_us)]
        insort(self._sorted, error_us)

    def quantile_us(self, quantile: float) -> Micros | None:
        """Return the nearest-rank quantile, or None while too few are known to say."""
        known = len(self._sorted)
        if known < _PROVEN:
            return None
        return self._sorted[max(0, math.ceil(quantile * known) - 1)]


class ArrivalRate:
    """How many samples arrive of late.

    Counted over stretches of a quarter of a second; each weighs as much as all before it, and one
    in which nothing came for long more than that.

    Attributes:
        per_us: samples per microsecond; 0.0 while too little is known.
    """

    __slots__ = ("_samples", "_since_us", "per_us")

    def __init__(self) -> None:
        self.per_us = 0.0
        self._samples = 0
        self._since_us: Micros = 0

    def add(self, now_us: Micros, samples: int) -> None:
        """Count an arrival."""
        self._samples += samples
        elapsed_us = now_us - self._since_us
        if elapsed_us < _STRETCH_US:
            return
        old = 0.5 ** (elapsed_us / _STRETCH_US)
        rate = self._samples / elapsed_us
        self.per_us = rate if self.per_us == 0.0 else old * self.per_us + (1 - old) * rate
        self._samples = 0
        self._since_us = now_us

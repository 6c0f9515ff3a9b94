"""Histograms for Prometheus that cost a bisection and two additions per observation.

The library's own take a lock and walk the buckets; here one thread observes and reads. Knows
nothing of what is observed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Spread:
    """What was observed of one thing, by bucket.

    Args:
        bounds: upper ends of the buckets, ascending; what is above all of them counts too.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def total(self) -> float:
        """The sum of all values."""
        return self._total

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many values were not above each bound, as Prometheus writes both."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


class Histogram(Collector):
    """A metric: one spread for each combination of labels.

    Args:
        name: with its unit.
        text: for the reader of the page.
        labels: their names.
        bounds: of the buckets.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = bounds
        self._spreads: dict[tuple[str, ...], Spread] = {}

    def labels(self, *values: str) -> Spread:
        """Return the spread for these values of the labels."""
        return self._spreads.setdefault(values, Spread(self._bounds))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield what the page shows."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, spread in self._spreads.items():
            family.add_metric(values, spread.buckets(), spread.total)
        yield family

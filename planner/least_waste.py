"""What one model wastes at the least, as far as it is known at one target and at given prices.

Knows nothing of other models and nothing of solvers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.fixing import surviving
from planner.paths import Floats, Ints, PathTable
from planner.solution import Instances
from planner.wasting import Demand, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Prices, and what paths come to at them.

    Attributes:
        prices: of a GPU, per class; the fleet is worth 1.
        worth: of a sample/s of each model: no path costs less.
        lost: (paths,) per model, what a sample/s costs beside that; infinite: not to be used.
        terms: the prices as programs want them.
    """

    prices: Floats
    worth: Sequence[float]
    lost: Sequence[Floats]
    terms: Terms


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Instances, none if there are none or none were found; and the least that must be wasted.

    If it is not finished, both are what was known by then.
    """

    instances: Instances
    wasted: float
    finished: bool


class ModelWaste:
    """What is known of one model at one target.

    Attributes:
        worth: of a sample/s.
        samples_rps: that it is to be given.
        least: that it wastes in any case.
        most: that it wasted at most where it was last looked at.
        rows: paths that may then be used.
        sure: `least` is what it wastes with `instances`.
        hard: it could not be said what it wastes; `least` is what was proven.
    """

    def __init__(
        self, table: PathTable, prices: Floats, costs: Floats, worth: float, samples_rps: float
    ) -> None:
        self._table, self._prices, self._costs = table, prices, costs
        self.worth, self.samples_rps = worth, samples_rps
        self.least, self.most = 0.0, -1.0
        self.rows: Ints = np.arange(0)
        self.instances: Instances = {}
        self.sure = self.hard = False

    @property
    def perfect(self) -> float:
        """What it costs with nothing wasted."""
        return self.worth * self.samples_rps

    def look(self, more: float) -> None:
        """Look at the model where it may waste so much more than it must."""
        if self.most != self.least + more:
            self.most = self.least + more
            self.rows = surviving(self._table, self._costs, self._prices, self.most)

    def demand(self) -> Demand:
        """Return what it is to be given, over the paths last looked at."""
        return Demand(
            paths=self._table.candidates(self.rows),
            worth=self.worth,
            samples_rps=self.samples_rps,
            least=self.least,
            most=self.most,
        )

    def learn(self, cheapest: Cheapest) -> float:
        """Take what an answer tells; return how much more is wasted than was known."""
        before = self.least
        self.hard = not cheapest.finished
        self.sure = cheapest.finished and bool(cheapest.instances)
        self.instances = cheapest.instances
        refuted = cheapest.finished and not self.sure
        # What was proven is of what wastes no more than `most`: it says nothing beyond that.
        self.least = self.most if refuted else max(before, min(cheapest.wasted, self.most))
        return self.least - before

"""How a fleet may be divided among models, unit by unit.

At given prices a model that may waste little takes units whose cost lies in a narrow band. Where
classes are few, so are the ways to take them, and whether models fit together falls apart: each is
asked, with no word of the others, whether it can do with so many units of each class. What does not
fit beside what the others take at the least need not be asked, and the model asked last has little
choice left (resource-directive decomposition: Kornai and Lipták, 1965).

Knows nothing of paths and nothing of solvers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from planner.least_waste import Cheapest
from planner.paths import Floats, Ints
from planner.solution import Instances

_MOST_SUMS = 1_000_000  # of units of all classes but one: more are not looked at
_HAIR = 1e-6  # units: room for rounding

Ask: TypeAlias = Callable[[int, Ints], Cheapest]


@dataclass(frozen=True, slots=True)
class Divided:
    """What came of dividing: instances that fit together, proof that there are none, or neither."""

    instances: Instances
    refuted: bool


def ways_to_take(prices: Floats, units: Ints, least: float, most: float, limit: int) -> Ints | None:
    """Return all numbers of units that cost so much, the dearest first.

    Args:
        prices: (classes,) of a unit.
        units: (classes,) that there are.
        least, most: cost.
        limit: of how many are returned.

    Returns:
        (ways, classes); None if there are more than the limit, or too many to look at.
    """
    last = int(np.argmax(units))
    others = [at for at in range(len(units)) if at != last]
    if math.prod(int(units[at]) + 1 for at in others) > _MOST_SUMS:
        return None
    sums = np.indices([int(units[at]) + 1 for at in others]).reshape(len(others), -1).T
    left = sums @ prices[others]
    low = np.maximum(0, np.ceil((least - left) / prices[last] - _HAIR)).astype(int)
    high = np.minimum(units[last], np.floor((most - left) / prices[last] + _HAIR)).astype(int)
    many = np.maximum(0, high - low + 1)
    if many.sum() > limit:
        return None
    rows = np.repeat(np.arange(len(sums)), many)
    ways = np.empty((len(rows), len(units)), dtype=int)
    ways[:, others] = sums[rows]
    ways[:, last] = low[rows] + np.arange(len(rows)) - np.repeat(np.cumsum(many) - many, many)
    return ways[np.argsort(-(ways @ prices), kind="stable")]


class Known:
    """What is known of one model, whatever else was sought: it is asked at many targets."""

    def __init__(self) -> None:
        self._enough: list[tuple[float, Ints, Cheapest]] = []
        self._too_few: list[tuple[float, Ints, Cheapest]] = []

    def recall(self, samples_rps: float, way: Ints) -> Cheapest | None:
        """Return whether so many units carry so much, if that is known."""
        for carried, units, answer in self._enough:
            if carried >= samples_rps and (units <= way).all():
                return answer
        for wanted, units, answer in self._too_few:
            if wanted <= samples_rps and (way <= units).all():
                return answer
        return None

    def learn(self, samples_rps: float, way: Ints, answer: Cheapest) -> None:
        """Take what an answer tells."""
        if answer.instances:
            self._enough.append((samples_rps, way, answer))
        elif answer.finished:
            self._too_few.append((samples_rps, way, answer))


class Division:
    """What models can still take, and what they are known to do with.

    Args:
        units: (classes,) that there are.
        ways: (ways, classes) per model, the dearest first; it takes one of these, or fewer units.
        ask: the instances of a model within some units; none and finished if there are none.
    """

    def __init__(self, units: Ints, ways: Sequence[Ints], ask: Ask) -> None:
        self._units, self._ways, self._ask = units, list(ways), ask
        self._answers: list[list[tuple[Ints, Instances]]] = [[] for _ in ways]

    def decide(self, order: Sequence[int]) -> Divided:
        """Ask the models in this order until they fit together, or cannot."""
        for model in order:
            self._narrow(model, last=model == order[-1])
            if not len(self._ways[model]):
                return Divided({}, refuted=True)
        return Divided(self._together() or {}, refuted=False)

    def _narrow(self, model: int, *, last: bool) -> None:
        """Leave what the model can do with, or may be able to, beside the others."""
        kept: list[Ints] = []
        ways = self._beside_others(model)
        while len(ways):
            way, ways = ways[0], ways[1:]
            answer = self._ask(model, way)
            if answer.finished and not answer.instances:
                ways = ways[~(ways <= way).all(axis=1)]
                continue
            kept.append(way)
            if answer.instances:
                self._answers[model].append((way, answer.instances))
                if last and self._together():
                    break
        self._ways[model] = np.array(kept, dtype=int).reshape(-1, len(self._units))

    def _beside_others(self, model: int) -> Ints:
        """Return the ways for which the others may leave enough."""
        sums = np.zeros((1, len(self._units)), dtype=int)
        for other, ways in enumerate(self._ways):
            if other != model:
                both = (sums[:, None] + _least(ways)[None]).reshape(-1, len(self._units))
                sums = _least(both[(both <= self._units).all(axis=1)])
        own = self._ways[model]
        fits = np.zeros(len(own), dtype=bool)
        for each in sums:
            fits |= (own + each <= self._units).all(axis=1)
        return own[fits]

    def _together(self) -> Instances | None:
        """Return instances of all models that fit together, if there are among the answers."""
        found: list[tuple[Ints, Instances]] = [(np.zeros(len(self._units), dtype=int), {})]
        for answers in self._answers:
            both = [
                (units + more, {**instances, **others})
                for units, instances in found
                for more, others in answers
                if (units + more <= self._units).all()
            ]
            if not both:
                return None
            least = {tuple(each) for each in _least(np.array([units for units, _ in both]))}
            found = list({key: pair for pair in both if (key := tuple(pair[0])) in least}.values())
        return found[0][1]


def _least(ways: Ints) -> Ints:
    """Return those of which no other takes fewer units of each class."""
    kept: list[Ints] = []
    for way in np.unique(ways, axis=0):  # in order: what takes fewer comes first
        if not any((each <= way).all() for each in kept):
            kept.append(way)
    return np.array(kept, dtype=int).reshape(-1, ways.shape[1])

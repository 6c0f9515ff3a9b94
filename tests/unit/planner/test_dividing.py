from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.dividing import Division, Known, ways_to_take
from planner.least_waste import Cheapest
from planner.paths import Ints
from planner.solution import Instances

NONE = Cheapest({}, 0.0, finished=True)
NOT_KNOWN = Cheapest({}, 0.0, finished=False)


def answer(model: int, way: Sequence[int]) -> Cheapest:
    """Return an answer whose only instance tells who took what."""
    return Cheapest(cast("Instances", {(model, *way): 1}), 0.0, finished=True)


@given(
    prices=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    units=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    least=st.integers(0, 60),
    band=st.integers(0, 20),
)
def test_ways_to_take_are_all_that_cost_so_much(
    prices: list[int], units: list[int], least: int, band: int
) -> None:
    units = units[: len(prices)]
    ways = ways_to_take(
        np.array(prices, dtype=float), np.array(units), float(least), float(least + band), 10_000
    )
    assert ways is not None
    costs = ways @ np.array(prices)
    assert (np.diff(costs) <= 0).all()
    everything = itertools.product(*(range(each + 1) for each in units))
    assert sorted(map(tuple, ways.tolist())) == [
        way
        for way in everything
        if least <= sum(n * price for n, price in zip(way, prices, strict=True)) <= least + band
    ]


def test_too_many_ways_are_none() -> None:
    prices, units = np.ones(2), np.array([10, 10])
    assert ways_to_take(prices, units, 10.0, 10.0, 11) is not None
    assert ways_to_take(prices, units, 10.0, 10.0, 10) is None
    assert ways_to_take(np.ones(3), np.array([2000, 2000, 2000]), 1.0, 1.0, 10) is None


class Fleet:
    """Models that can do with some numbers of units, and with all that are no smaller."""

    def __init__(self, units: Sequence[int], enough: Sequence[Sequence[tuple[int, ...]]]) -> None:
        self.units, self.enough = np.array(units), enough
        self.asked: list[tuple[int, ...]] = []
        self.hidden: set[tuple[int, ...]] = set()

    def can_do(self, model: int, way: Ints) -> bool:
        return any((np.array(each) <= way).all() for each in self.enough[model])

    def ask(self, model: int, way: Ints) -> Cheapest:
        key = (model, *way.tolist())
        assert key not in self.asked
        self.asked.append(key)
        if key in self.hidden:
            return NOT_KNOWN
        return answer(model, way.tolist()) if self.can_do(model, way) else NONE

    def division(self) -> Division:
        everything = np.indices(tuple(self.units + 1)).reshape(len(self.units), -1).T[::-1]
        return Division(self.units, [everything] * len(self.enough), self.ask)

    def fits(self) -> bool:
        return any(
            (np.sum(chosen, axis=0) <= self.units).all()
            for chosen in itertools.product(*self.enough)
        )


def fleets() -> st.SearchStrategy[Fleet]:
    def of(units: list[int]) -> st.SearchStrategy[Fleet]:
        way = st.tuples(*(st.integers(0, each + 1) for each in units))
        models = st.lists(st.lists(way, min_size=1, max_size=3), min_size=1, max_size=3)
        return st.builds(Fleet, st.just(units), models)

    return st.lists(st.integers(1, 4), min_size=2, max_size=2).flatmap(of)


@given(fleets())
def test_dividing_decides_whether_models_fit_together(fleet: Fleet) -> None:
    order = list(range(len(fleet.enough)))
    divided = fleet.division().decide(order)
    assert divided.refuted != bool(divided.instances)
    assert divided.refuted != fleet.fits()
    taken = cast("list[tuple[int, ...]]", list(divided.instances))
    if taken:
        assert sorted(each[0] for each in taken) == order
        assert (np.sum([each[1:] for each in taken], axis=0) <= fleet.units).all()
        assert all(fleet.can_do(each[0], np.array(each[1:])) for each in taken)


@settings(max_examples=200)
@given(fleets(), st.data())
def test_what_is_not_known_refutes_nothing(fleet: Fleet, data: st.DataObject) -> None:
    everything = itertools.product(
        range(len(fleet.enough)), *(range(each + 1) for each in fleet.units.tolist())
    )
    fleet.hidden = set(data.draw(st.lists(st.sampled_from(list(everything)))))
    divided = fleet.division().decide(list(range(len(fleet.enough))))
    assert not (divided.refuted and fleet.fits())
    assert fleet.fits() or not divided.instances


def test_what_is_known_is_known_of_less_and_of_more() -> None:
    known, enough = Known(), answer(0, (3, 3))
    known.learn(10.0, np.array((3, 3)), enough)
    known.learn(10.0, np.array((2, 3)), NONE)
    known.learn(11.0, np.array((9, 9)), NOT_KNOWN)

    def recall(rps: float, *way: int) -> Cheapest | None:
        return known.recall(rps, np.array(way))

    assert recall(10.0, 3, 3) is enough
    assert recall(9.0, 3, 4) is enough
    assert recall(10.5, 3, 3) is None
    assert recall(10.0, 2, 3) is NONE
    assert recall(11.0, 2, 2) is NONE
    assert recall(9.0, 2, 3) is None
    assert recall(11.0, 9, 9) is None

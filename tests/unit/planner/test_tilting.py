from __future__ import annotations

import numpy as np
import pytest

from planner.paths import Floats
from planner.tilting import tilted

COUNT = np.array([10.0, 20.0])
PRICES = np.array([0.06, 0.02])  # 10 and 20 of them are worth 1


def gpus(*counts: float) -> Floats:
    return np.array(counts)


def test_the_class_that_is_short_gets_dearer_until_what_is_taken_costs_too_much() -> None:
    taken = [[gpus(6.0, 4.0)], [gpus(5.0, 12.0)]]  # 11 and 16, worth 0.98
    found = tilted(PRICES, COUNT, taken)
    assert found is not None
    assert found @ COUNT == pytest.approx(1.0)
    assert found[0] > PRICES[0]
    assert 1.0 < found @ gpus(11.0, 16.0) < 1.001


def test_of_what_a_model_took_the_cheapest_counts() -> None:
    taken = [[gpus(6.0, 4.0), gpus(5.0, 7.5)], [gpus(5.0, 12.5)]]
    found = tilted(PRICES, COUNT, taken)
    assert found is None  # 10 and 20 fit, at whatever price


@pytest.mark.parametrize("second", [(9.0, 19.0), (9.0, 22.0)])
def test_there_are_no_prices_where_parts_of_what_was_taken_fit(second: tuple[float, float]) -> None:
    one, other = gpus(11.0, 16.0), gpus(*second)
    assert tilted(PRICES, COUNT, [[one, other]]) is None


def test_prices_move_no_further_than_they_must() -> None:
    nearly = tilted(PRICES, COUNT, [[gpus(11.0, 16.9)]])
    well = tilted(PRICES, COUNT, [[gpus(11.0, 14.0)]])
    assert nearly is not None
    assert well is not None
    assert PRICES[0] < nearly[0] < well[0]

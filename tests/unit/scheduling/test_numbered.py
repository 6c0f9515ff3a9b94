"""What is open under ever higher numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvariantViolation
from penstock.scheduling.numbered import Numbered


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=400))
def test_it_holds_what_a_dict_would(steps: list[tuple[int, int]]) -> None:
    held: Numbered[str] = Numbered()
    expected: dict[int, str] = {}
    number = -1
    for skipped, taken in steps:
        number += 1 + skipped
        held.add(number, f"<{number}>")
        expected[number] = f"<{number}>"
        for each in (number - taken, number - taken // 2):
            assert held.pop(each) == expected.pop(each, None)
    assert len(held) == len(expected)
    assert list(held.items()) == list(expected.items())
    assert held.values() == list(expected.values())
    for each in range(-2, number + 3):
        assert held.get(each) == expected.get(each)


def test_numbers_that_are_gone_take_no_room() -> None:
    held: Numbered[int] = Numbered()
    for number in range(10_000):
        held.add(number, number)
        if number >= 10:
            held.pop(number - 10)
    assert len(held) == 10
    assert len(held._things) < 200
    assert held[9_995] == 9_995


def test_a_number_is_given_once_and_upwards() -> None:
    held: Numbered[str] = Numbered()
    held.add(3, "a")
    with pytest.raises(InvariantViolation, match="number 3 is given after 3"):
        held.add(3, "b")
    with pytest.raises(KeyError):
        held[2]

"""Transfers over one direction of a network card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvariantViolation
from penstock.scheduling.bookings import Booking
from penstock.scheduling.lanes import Lane, gap_in_both


def a_lane(*times: tuple[int, int]) -> Lane:
    lane = Lane()
    for each in times:
        lane.book(Booking(*each))
    return lane


@pytest.mark.parametrize(
    ("at_us", "length_us", "found_us"),
    [(0, 10, 0), (0, 11, 40), (5, 6, 20), (15, 5, 20), (15, 11, 40), (30, 1, 40), (50, 9, 50)],
)
def test_a_transfer_takes_the_first_gap_that_is_long_enough(
    at_us: int, length_us: int, found_us: int
) -> None:
    # [10, 20) and [30, 40) are taken; what was booked for later keeps nobody waiting.
    assert a_lane((30, 40), (10, 20)).gap(at_us, length_us) == found_us


def test_two_lanes_must_be_free_at_once() -> None:
    assert gap_in_both(a_lane((0, 10), (20, 30)), a_lane((12, 18)), 0, 8) == 30
    assert gap_in_both(a_lane((0, 10), (20, 30)), a_lane((12, 18)), 0, 2) == 10


@pytest.mark.parametrize("taken", [(15, 25), (5, 11), (12, 13), (10, 20), (13, 12), (30, 30)])
def test_what_overlaps_or_runs_backwards_is_a_bug(taken: tuple[int, int]) -> None:
    with pytest.raises(InvariantViolation):
        a_lane((10, 20)).book(Booking(*taken))


def test_what_is_released_or_over_is_forgotten() -> None:
    lane, released = a_lane((0, 10), (20, 30)), Booking(10, 20)
    lane.book(released)
    assert lane.release(released)
    assert not lane.release(released)
    lane.expire(10)
    assert lane.bookings() == (Booking(20, 30),)
    assert lane.release(Booking(20, 30))
    assert (lane.bookings(), lane.gap(0, 100)) == ((), 0)
    lane.book(Booking(5, 15))
    lane.expire(15)
    assert len(lane) == 0


LENGTHS = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=30)


@given(LENGTHS, LENGTHS)
def test_a_gap_is_free_and_none_is_earlier(
    one: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    lane = Lane()
    for at_us, length_us in one:
        start_us = lane.gap(at_us, length_us)
        lane.book(Booking(start_us, start_us + length_us))
    taken = {us for each in lane.bookings() for us in range(each.start_us, each.end_us)}
    for at_us, length_us in asked:
        found_us = lane.gap(at_us, length_us)
        earliest_us = next(
            us for us in range(at_us, 10_000) if taken.isdisjoint(range(us, us + length_us))
        )
        assert found_us == earliest_us

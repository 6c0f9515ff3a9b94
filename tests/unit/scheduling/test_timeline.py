from __future__ import annotations

import pytest

from penstock.domain.errors import InvariantViolation
from penstock.scheduling.timeline import Booking, Timeline


def test_an_empty_timeline_is_free_now() -> None:
    assert Timeline[int]().free_at(7) == 7


def test_bookings_follow_each_other() -> None:
    line = Timeline[int]()
    line.book(1, 10, 20)
    line.book(2, 30, 40)
    assert line.free_at(0) == 40
    assert line.bookings() == {1: Booking(10, 20), 2: Booking(30, 40)}


def test_an_early_finish_frees_only_its_own_booking() -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    line.book(2, 20, 40)
    line.finish(1, 5)
    assert line.bookings() == {2: Booking(20, 40)}
    assert line.free_at(5) == 40


def test_an_overdue_booking_pushes_back_what_follows() -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    line.book(2, 20, 40)
    assert line.free_at(26) == 46
    assert line.bookings()[2] == Booking(20, 40)


def test_a_late_finish_delays_the_next_booking_until_it_reports() -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    line.book(2, 20, 40)
    line.finish(1, 30)
    assert line.free_at(31) == 50
    line.finish(2, 48)
    assert line.free_at(48) == 48


def test_a_released_booking_was_never_worked_on() -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    line.book(2, 20, 40)
    line.release(1)
    assert line.free_at(30) == 40


@pytest.mark.parametrize(("start_us", "end_us"), [(10, 30), (19, 19), (25, 24)])
def test_a_booking_that_overlaps_or_runs_backwards_is_a_bug(start_us: int, end_us: int) -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    with pytest.raises(InvariantViolation):
        line.book(2, start_us, end_us)


def test_a_batch_is_booked_once() -> None:
    line = Timeline[int]()
    line.book(1, 0, 20)
    with pytest.raises(InvariantViolation):
        line.book(1, 20, 40)

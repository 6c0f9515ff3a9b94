from __future__ import annotations

import pytest

from penstock.domain.errors import InvariantViolation
from penstock.scheduling.bookings import Booking
from penstock.scheduling.timeline import Timeline


def a_timeline(*times: tuple[int, int]) -> tuple[Timeline, list[Booking]]:
    line, bookings = Timeline(), [Booking(*each) for each in times]
    for each in bookings:
        line.book(each)
    return line, bookings


def test_an_empty_timeline_is_free_now() -> None:
    assert Timeline().free_at(7) == 7


def test_bookings_follow_each_other() -> None:
    line, _ = a_timeline((10, 20), (30, 40))
    assert line.free_at(0) == 40
    assert line.bookings() == (Booking(10, 20), Booking(30, 40))


def test_an_early_finish_frees_only_its_own_booking() -> None:
    line, (first, _) = a_timeline((0, 20), (20, 40))
    line.finish(first, 5)
    assert line.bookings() == (Booking(20, 40),)
    assert line.free_at(5) == 40


def test_an_overdue_booking_pushes_back_what_follows() -> None:
    line, _ = a_timeline((0, 20), (20, 40))
    assert line.free_at(26) == 46
    assert line.bookings()[1] == Booking(20, 40)


def test_a_late_finish_delays_the_next_booking_until_it_reports() -> None:
    line, (first, second) = a_timeline((0, 20), (20, 40))
    line.finish(first, 30)
    assert line.free_at(31) == 50
    line.finish(second, 48)
    assert line.free_at(48) == 48


def test_a_released_booking_was_never_worked_on() -> None:
    line, (first, _) = a_timeline((0, 20), (20, 40))
    line.release(first)
    assert line.free_at(30) == 40


def test_what_is_booked_elsewhere_at_the_same_time_is_not_meant() -> None:
    line, _ = a_timeline((0, 20))
    line.finish(Booking(0, 20), 5)
    line.release(Booking(0, 20))
    assert line.bookings() == (Booking(0, 20),)


@pytest.mark.parametrize(("start_us", "end_us"), [(10, 30), (19, 19), (25, 24)])
def test_a_booking_that_overlaps_or_runs_backwards_is_a_bug(start_us: int, end_us: int) -> None:
    line, _ = a_timeline((0, 20))
    with pytest.raises(InvariantViolation):
        line.book(Booking(start_us, end_us))


@pytest.mark.parametrize("end_us", [0, 20])
def test_a_booking_is_made_once(end_us: int) -> None:
    line, (only,) = a_timeline((0, end_us))
    with pytest.raises(InvariantViolation):
        line.book(only)

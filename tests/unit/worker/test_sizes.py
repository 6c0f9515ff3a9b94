"""Which batch size a batch runs at, and which is built next; and building when it is quiet."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.executors.idle import IdleBuilder
from worker.executors.sizes import WORTH, SizeBook, halves

times = st.dictionaries(st.integers(1, 64), st.floats(1, 1e6), min_size=1)


def a_book(built: dict[int, float], largest: int = 64) -> SizeBook:
    book = SizeBook(largest)
    for size, took_us in built.items():
        book.add(size, took_us)
    return book


@given(times, st.integers(1, 64))
def test_a_batch_runs_at_the_quickest_size_that_holds_it(
    built: dict[int, float], samples: int
) -> None:
    book = a_book(built)
    fitting = {size: us for size, us in built.items() if size >= samples}
    if not fitting:
        with pytest.raises(KeyError):
            book.choose(samples)
        return
    size = book.choose(samples)
    assert size >= samples
    assert fitting[size] == min(fitting.values())


def test_a_size_that_was_never_measured_is_tried() -> None:
    book = a_book({8: 100.0})
    book.add(4)
    assert book.choose(3) == 4
    book.measured(4, 150.0)
    assert book.choose(3) == 8


@given(times, st.integers(1, 64))
def test_what_is_wanted_saves_enough_and_is_not_there(
    built: dict[int, float], samples: int
) -> None:
    book = a_book({**built, 64: 1e6})
    size = book.choose(samples)
    saved_us = book.saving_us(samples, size)
    took_us = {**built, 64: 1e6}[size]
    assert saved_us == 0 or WORTH * took_us <= saved_us <= took_us
    if book.note(samples, size):
        assert samples not in book.built
        assert samples < size


@given(st.lists(st.integers(1, 32), max_size=60))
def test_building_what_is_wanted_comes_to_an_end(batches: list[int]) -> None:
    book = a_book({32: 3_200.0}, largest=32)
    for samples in batches:
        book.note(samples, book.choose(samples))
    built: list[int] = []
    while (size := book.next_wanted()) is not None:
        built.append(size)
        book.add(size, 100.0 * size)
    assert len(built) == len(set(built)) <= 16
    assert 32 not in built


def test_what_saves_most_is_built_first_then_halves() -> None:
    book = a_book({16: 1_600.0}, largest=16)
    assert book.next_wanted() == 8
    for samples in (3, 12, 3, 3):
        book.note(samples, 16)
    order = []
    while (size := book.next_wanted()) is not None:
        order.append(size)
        book.add(size, 100.0 * size)
    assert order[0] == 3
    assert order[-3:] == [4, 2, 1]
    assert [*halves(16)] == [8, 4, 2, 1]


def test_a_size_that_padding_hardly_costs_is_not_wanted() -> None:
    book = a_book({8: 100.0})
    assert not book.note(7, 8)
    assert book.note(2, 8)


def test_what_cannot_be_built_is_never_wanted_again() -> None:
    book = a_book({8: 100.0}, largest=8)
    for size in (4, 2, 1):
        book.give_up(size)
    assert not book.note(2, 8)
    assert book.next_wanted() is None


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_built_until_it_is_quiet() -> None:
    clock, book, built = Clock(), a_book({2: 100.0}, largest=2), list[int]()

    def build(size: int) -> None:
        built.append(size)
        book.add(size)

    builder = IdleBuilder("s", book, build, quiet_s=1.0, now_s=clock)
    builder.batch(1, 2)
    clock.now_s = 0.25
    assert builder.step() == 0.75
    assert built == []
    clock.now_s = 1.0
    assert builder.step() == 0.0
    assert built == [1]
    assert builder.step() is None


def test_a_size_that_fails_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    book = a_book({4: 100.0}, largest=4)

    def build(size: int) -> None:
        if size == 2:
            raise RuntimeError("no")
        book.add(size)

    builder = IdleBuilder("s", book, build, quiet_s=0.0)
    while builder.step() is not None:
        pass
    assert book.built == (1, 4)
    assert "batch size 2 stays padded: no" in caplog.text


def test_the_thread_builds_and_ends() -> None:
    book, done = a_book({4: 100.0}, largest=4), threading.Event()

    def build(size: int) -> None:
        book.add(size, 25.0 * size)
        if book.built == (1, 2, 4):
            done.set()

    builder = IdleBuilder("s", book, build, quiet_s=0.01)
    builder.start()
    builder.batch(1, 4)
    assert done.wait(5)
    builder.stop()
    assert not any(each.name == "build sizes" for each in threading.enumerate())

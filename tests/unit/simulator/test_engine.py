from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.domain.errors import InvariantViolation
from simulator.engine import Engine


def test_what_is_fed_comes_before_what_is_scheduled_for_the_same_instant() -> None:
    engine = Engine()
    seen: list[tuple[int, str]] = []

    def note(word: str) -> None:
        seen.append((engine.now_us, word))
        if word == "b":
            engine.at(2, note, "later")

    engine.at(2, note, "first")
    engine.at(1, note, "a")
    engine.feed(iter([(1, "b"), (2, "c"), (3, "d")]), note)
    engine.run()
    assert seen == [(1, "b"), (1, "a"), (2, "c"), (2, "first"), (2, "later"), (3, "d")]


def test_a_feed_is_drawn_as_time_goes_on() -> None:
    engine = Engine()
    drawn: list[int] = []

    def instants() -> Iterator[tuple[int, int]]:
        for at_us in range(5):
            drawn.append(at_us)
            yield at_us, at_us

    def look(at_us: int) -> None:
        assert len(drawn) == at_us + 1

    engine.feed(instants(), look)
    engine.run()
    assert len(drawn) == 5


def test_a_halted_run_stays_where_it_is() -> None:
    engine = Engine()
    engine.feed(iter([(1, None), (5, None)]), lambda _: engine.halt())
    engine.run()
    assert (engine.now_us, engine.halted) == (1, True)


def test_time_does_not_go_back() -> None:
    engine = Engine()
    engine.feed(iter([(2, None), (1, None)]), lambda _: None)
    with pytest.raises(InvariantViolation, match="fed for 1, it is 2"):
        engine.run()
    with pytest.raises(InvariantViolation, match="scheduled for 0, it is 2"):
        engine.at(0, lambda _: None, None)

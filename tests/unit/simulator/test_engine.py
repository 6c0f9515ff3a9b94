from __future__ import annotations

import random
import weakref
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("reach_us", [3, 3_000, 3_000_000])
def test_actions_come_in_order_of_time_then_of_scheduling(seed: int, reach_us: int) -> None:
    engine, dice = Engine(), random.Random(seed)
    scheduled: list[tuple[int, int]] = []
    seen: list[tuple[int, int]] = []

    def schedule() -> None:
        entry = (engine.now_us + dice.randrange(reach_us), len(scheduled))
        scheduled.append(entry)
        engine.at(entry[0], act, entry)

    def act(entry: tuple[int, int]) -> None:
        assert entry[0] == engine.now_us
        seen.append(entry)
        for _ in range(dice.randrange(3) if len(scheduled) < 400 else 0):
            schedule()

    for _ in range(30):
        schedule()
    fed = [dice.randrange(2 * reach_us) for _ in range(30)]
    engine.feed(((each, None) for each in sorted(fed)), lambda _: schedule())
    engine.run()
    assert len(seen) >= 60
    assert seen == sorted(scheduled)


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


def test_what_never_came_is_let_go_of_when_a_run_ends() -> None:
    engine = Engine()
    subject = Subject()
    seen = weakref.ref(subject)
    for at_us in (2, 3, 3_000_000):
        engine.at(at_us, lambda _: engine.halt(), subject)
    engine.run()
    del subject
    assert (engine.now_us, seen()) == (2, None)


class Subject:
    """Something an action is done on."""

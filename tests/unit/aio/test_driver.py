"""The driver: order, re-entrance and its one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from penstock.aio.clock import MonotonicClock
from penstock.aio.driver import Driver
from penstock.domain.ids import BatchId, InstanceId, RequestId
from penstock.scheduling.effects import CompleteRequest, Effect, WakeAt
from penstock.scheduling.events import BatchFinished, Event, InstanceLost, WakeUp


class Script:
    """A machine that answers each kind of event as told, and remembers what came."""

    def __init__(self, answers: dict[type[object], list[Effect]]) -> None:
        self.answers = answers
        self.came: list[tuple[int, Event]] = []

    def handle(self, now_us: int, event: Event) -> Sequence[Effect]:
        self.came.append((now_us, event))
        return self.answers.pop(type(event), [])


async def test_effects_are_performed_in_order_and_events_posted_meanwhile_come_after() -> None:
    done = CompleteRequest(RequestId(1), True)
    script = Script({BatchFinished: [done, done]})
    seen: list[object] = []

    def perform(effect: Effect) -> None:
        seen.append(effect)
        driver.post(InstanceLost(InstanceId("x")))
        assert len(script.came) == 1  # not yet: this event is still being handled

    driver = Driver(script, MonotonicClock(), perform)
    driver.post(BatchFinished(BatchId(0)))
    assert seen == [done, done]
    assert [type(event) for _, event in script.came] == [BatchFinished, InstanceLost, InstanceLost]


async def test_a_wake_up_comes_at_its_time_and_a_later_one_replaces_it() -> None:
    clock = MonotonicClock()
    start_us = clock.now_us()
    script = Script(
        {
            BatchFinished: [WakeAt(start_us + 60_000_000), WakeAt(start_us + 20_000)],
        }
    )
    woken = asyncio.Event()

    def log(now_us: int, event: Event, effects: Sequence[Effect]) -> None:
        if isinstance(event, WakeUp):
            woken.set()

    driver = Driver(script, clock, lambda effect: None, log)
    driver.post(BatchFinished(BatchId(0)))
    async with asyncio.timeout(5):
        await woken.wait()
    assert script.came[-1][0] >= start_us + 20_000
    driver.close()


async def test_an_error_in_the_machine_reaches_the_poster_and_does_not_jam_the_driver() -> None:
    class Broken(Script):
        def handle(self, now_us: int, event: Event) -> Sequence[Effect]:
            if isinstance(event, InstanceLost):
                raise RuntimeError("bug")
            return super().handle(now_us, event)

    script = Broken({})
    driver = Driver(script, MonotonicClock(), lambda effect: None)
    with pytest.raises(RuntimeError, match="bug"):
        driver.post(InstanceLost(InstanceId("x")))
    driver.post(WakeUp())
    assert len(script.came) == 1


def test_the_clock_counts_up_from_zero() -> None:
    clock = MonotonicClock()
    first = clock.now_us()
    assert 0 <= first < 1_000_000
    assert clock.now_us() >= first

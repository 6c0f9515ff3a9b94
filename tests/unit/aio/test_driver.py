"""The driver: order, re-entrance and its one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from penstock.aio.clock import MonotonicClock
from penstock.aio.driver import Driver
from penstock.domain.ids import BatchId, InstanceId, RequestId
from penstock.scheduling.effects import CompleteRequest, Effect, WakeAt
from penstock.scheduling.events import (
    BatchFinished,
    Event,
    InstanceLost,
    RequestArrived,
    RequestCancelled,
    WakeUp,
)
from tests.support.builders import a_request


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


def an_arrival(number: int) -> RequestArrived:
    return RequestArrived(a_request(number))


async def test_an_arrival_after_a_quiet_while_is_handled_soon_and_later_ones_together() -> None:
    script = Script({})
    driver = Driver(script, MonotonicClock(), lambda effect: None, gather_us=20_000)
    driver.post(an_arrival(0))
    await asyncio.sleep(0)
    assert [event for _, event in script.came] == [an_arrival(0)]
    for number in (1, 2, 3):
        driver.post(an_arrival(number))
    driver.post(BatchFinished(BatchId(0)))  # waits for nobody
    assert len(script.came) == 2
    async with asyncio.timeout(5):
        while len(script.came) < 5:  # noqa: ASYNC110 - a list, not an event
            await asyncio.sleep(0.001)
    arrived = [event for _, event in script.came if isinstance(event, RequestArrived)]
    assert [(each.request.id, each.followed) for each in arrived] == [
        (0, False),
        (1, True),
        (2, True),
        (3, False),
    ]
    assert script.came[-1][0] - script.came[0][0] >= 19_000


async def test_arrivals_of_one_turn_of_the_loop_are_handled_together() -> None:
    script = Script({})
    driver = Driver(script, MonotonicClock(), lambda effect: None, gather_us=60_000_000)
    for number in (0, 1, 2):
        driver.post(an_arrival(number))
    assert not script.came
    await asyncio.sleep(0)
    arrived = [event for _, event in script.came if isinstance(event, RequestArrived)]
    assert [each.followed for each in arrived] == [True, True, False]


async def test_an_event_is_performed_before_it_is_logged() -> None:
    told: list[str] = []
    script = Script({WakeUp: [CompleteRequest(RequestId(0), True)]})
    driver = Driver(
        script,
        MonotonicClock(),
        lambda effect: told.append("performed"),
        lambda now_us, event, effects: told.append("logged"),
    )
    driver.post(WakeUp())
    assert told == ["performed", "logged"]


async def test_a_cancelled_request_has_arrived_before() -> None:
    script = Script({})
    driver = Driver(script, MonotonicClock(), lambda effect: None, gather_us=60_000_000)
    driver.post(an_arrival(0))
    await asyncio.sleep(0)
    driver.post(an_arrival(1))
    driver.post(RequestCancelled(RequestId(1)))
    assert [event for _, event in script.came] == [
        an_arrival(0),
        an_arrival(1),
        RequestCancelled(RequestId(1)),
    ]


async def test_what_was_gathered_is_handled_at_the_end() -> None:
    script = Script({})
    driver = Driver(script, MonotonicClock(), lambda effect: None, gather_us=60_000_000)
    driver.post(an_arrival(0))
    await asyncio.sleep(0)
    driver.post(an_arrival(1))
    driver.close()
    assert [event for _, event in script.came] == [an_arrival(0), an_arrival(1)]

"""The door: deadlines, cancellation, closing."""

from __future__ import annotations

import asyncio

import pytest

from frontend.admission import Admission
from frontend.ingress import Answer, Dropped, Ingress, Outcome
from penstock.domain.requests import DropReason
from penstock.rpc.oip import Query, read_infer
from penstock.scheduling.effects import CompleteRequest, DropRequest
from penstock.scheduling.events import Event, RequestArrived, RequestCancelled
from tests.support.frontends import echo_signature
from tests.support.messages import echo_request

NOW_US = 1_000
SLO_US = 100_000


class Door:
    """An admission whose dispatcher only takes notes."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ingress = Ingress()
        self.admission = Admission(self.ingress, self.events.append, lambda: NOW_US)

    def arrived(self) -> RequestArrived:
        event = self.events[0]
        assert isinstance(event, RequestArrived)
        return event


async def asked(
    door: Door, query: Query, slo_us: int = SLO_US, time_left_us: int | None = None
) -> Outcome:
    return await door.admission.submit(query, slo_us, time_left_us)


def a_query(timeout_us: int = 0, samples: int = 2) -> Query:
    request = echo_request(samples)
    request.parameters["timeout"].int64_param = timeout_us
    request.parameters["priority"].int64_param = 4
    return read_infer(request, echo_signature())


@pytest.mark.parametrize(
    ("timeout_us", "time_left_us", "allowed_us"),
    [
        (0, None, SLO_US),
        (20_000, None, 20_000),
        (0, 30_000, 30_000),
        (20_000, 10_000, 10_000),
        (900_000, 900_000, SLO_US),
        (0, 0, 0),
    ],
)
async def test_the_deadline_is_the_least_of_slo_timeout_and_time_left(
    timeout_us: int, time_left_us: int | None, allowed_us: int
) -> None:
    door = Door()
    task = asyncio.create_task(asked(door, a_query(timeout_us), SLO_US, time_left_us))
    await asyncio.sleep(0)
    request = door.arrived().request
    assert request.deadline_us == NOW_US + allowed_us
    assert (request.arrival_us, request.samples, request.priority) == (NOW_US, 2, 4)
    door.ingress.drop(DropRequest(request.id, DropReason.SHED, "full"))
    assert await task == Dropped(DropReason.SHED, "full")


async def test_a_caller_that_goes_away_cancels_its_request() -> None:
    door = Door()
    task = asyncio.create_task(asked(door, a_query()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.events[1:] == [RequestCancelled(door.arrived().request.id)]
    assert door.admission.pending == 0


async def test_closing_refuses_the_new_and_keeps_the_old() -> None:
    door = Door()
    task = asyncio.create_task(asked(door, a_query()))
    await asyncio.sleep(0)
    door.admission.close()
    idle = asyncio.create_task(door.admission.idle())
    refusal = await door.admission.submit(a_query(), SLO_US)
    assert isinstance(refusal, Dropped)
    assert refusal.reason is DropReason.UNAVAILABLE
    assert not idle.done()
    door.ingress.finish(CompleteRequest(door.arrived().request.id, True))
    assert await task == Answer(outputs=(), met_deadline=True)
    await idle
    assert len(door.events) == 1


async def test_each_request_has_its_own_id() -> None:
    door = Door()
    tasks = [asyncio.create_task(asked(door, a_query())) for _ in range(3)]
    await asyncio.sleep(0)
    ids = [each.request.id for each in door.events if isinstance(each, RequestArrived)]
    assert len(set(ids)) == 3
    assert door.admission.pending == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_at_full_load_every_query_ends_once_however_it_ends() -> None:
    door = Door()
    tasks = [asyncio.create_task(asked(door, a_query())) for _ in range(600)]
    await asyncio.sleep(0)
    ids = [each.request.id for each in door.events if isinstance(each, RequestArrived)]
    cancelled, dropped, answered = ids[::3], ids[1::3], ids[2::3]
    for task in tasks[::3]:
        task.cancel()
    for request in dropped:
        door.ingress.drop(DropRequest(request, DropReason.DEADLINE, "late"))
    for request in answered:
        door.ingress.finish(CompleteRequest(request, True))
    for request in cancelled:  # the dispatcher may not have heard of it yet
        door.ingress.finish(CompleteRequest(request, True))
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in ends] == [asyncio.CancelledError, Dropped, Answer] * 200
    told = [each.request for each in door.events if isinstance(each, RequestCancelled)]
    assert sorted(told) == sorted(cancelled)
    assert (door.admission.pending, len(door.ingress)) == (0, 0)

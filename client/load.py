"""Open-loop load: sends each request at its instant, whatever became of the ones before.

Latency counts from the intended instant, so a server that stalls, or a sender that is late,
cannot leave out the waits it causes (coordinated omission). Besides `penstock.aio.clock` this is
the only place of the client that reads a clock. Knows nothing of files, tables or pictures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from client.infer import InferenceClient, RequestFailed
from client.inputs import EncodedRequest, Inputs
from client.messages import Answer, decode_answer
from client.outcomes import NOT_SENT, OK, LoadResult, RequestOutcome
from penstock.aio.clock import MonotonicClock
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.units import US_PER_SECOND, Bytes, Micros, seconds_from_micros

# Gets each answer as it comes; what it does delays the load, so it should only put things aside.
OnAnswer: TypeAlias = Callable[[RequestOutcome, Answer], None]

# Gets the number of requests that have ended, and of all, a few times a second.
OnProgress: TypeAlias = Callable[[int, int], None]

_PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model under load: what it is sent and how soon it should answer."""

    inputs: Inputs
    slo_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """A load.

    Attributes:
        address: ``host:port`` of the server.
        arrivals: when to ask which model; sorted. An SLO of its own overrides its model's.
        targets: each model that arrivals name.
        duration_us: time over which the requests are offered.
        connections: TCP connections, used in turn.
        deadline_us: each request is given up this long after its intended send.
        timeout_us: the ``timeout`` parameter of each request; None: the server's own.
        connect_timeout_us: how long to wait for the connections before the load starts.
        in_flight_bytes, in_flight_requests: what may be under way; more is not sent, and
            counted as such.
    """

    address: str
    arrivals: tuple[Arrival, ...]
    targets: Mapping[ModelName, Target]
    duration_us: Micros
    connections: int = 8
    deadline_us: Micros = 10 * US_PER_SECOND
    timeout_us: Micros | None = None
    connect_timeout_us: Micros = 10 * US_PER_SECOND
    in_flight_bytes: Bytes = 256 << 20
    in_flight_requests: int = 10_000

    def __post_init__(self) -> None:
        """Refuse a load that cannot be sent.

        Raises:
            InvalidSettings: there are no arrivals, or a limit is not above 0.
            UnknownName: an arrival names a model without a target.
        """
        if not self.arrivals:
            raise InvalidSettings("load", "arrivals", "at least one request", "none")
        limits = ("duration_us", "connections", "deadline_us", "in_flight_bytes")
        for name in (*limits, "in_flight_requests"):
            if getattr(self, name) <= 0:
                raise InvalidSettings("load", name, "a number above 0", str(getattr(self, name)))
        for arrival in self.arrivals:
            if arrival.model not in self.targets:
                raise UnknownName("model of the load", arrival.model, self.targets)


async def run_load(
    settings: LoadSettings,
    *,
    on_answer: OnAnswer | None = None,
    on_progress: OnProgress | None = None,
) -> LoadResult:
    """Send a load and wait until every request has ended.

    Ends at the latest one deadline after the last arrival.

    Raises:
        RequestFailed: the server could not be reached before the load started.
    """
    schedule = _schedule(settings)
    async with InferenceClient(settings.address, connections=settings.connections) as client:
        await client.wait_connected(settings.connect_timeout_us)
        sender = _Sender(settings, client, on_answer)
        async with asyncio.TaskGroup() as group:
            if on_progress is not None:
                group.create_task(_report(sender, len(schedule), on_progress))
            await sender.send_all(schedule, group)
    outcomes = sorted(sender.outcomes, key=lambda each: each.number)
    return LoadResult(outcomes=tuple(outcomes), duration_us=settings.duration_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """One request of the schedule."""

    number: int
    arrival: Arrival
    request: EncodedRequest
    slo_us: Micros


def _schedule(settings: LoadSettings) -> list[_Planned]:
    """Encode the requests, and lay them out over the arrivals in turn."""
    needed: dict[tuple[ModelName, int], int] = {}
    for arrival in settings.arrivals:
        kind = (arrival.model, arrival.samples)
        needed[kind] = needed.get(kind, 0) + 1
    encoded = {
        (model, samples): settings.targets[model].inputs.encode(
            model, samples, requests, settings.timeout_us
        )
        for (model, samples), requests in needed.items()
    }
    turns = {kind: count() for kind in needed}
    schedule: list[_Planned] = []
    for number, arrival in enumerate(settings.arrivals):
        kind = (arrival.model, arrival.samples)
        requests_of_kind = encoded[kind]
        request = requests_of_kind[next(turns[kind]) % len(requests_of_kind)]
        slo_us = arrival.slo_us or settings.targets[arrival.model].slo_us
        schedule.append(_Planned(number=number, arrival=arrival, request=request, slo_us=slo_us))
    return schedule


class _Sender:
    """Sends a schedule; holds what is under way and how the others ended."""

    def __init__(
        self, settings: LoadSettings, client: InferenceClient, on_answer: OnAnswer | None
    ) -> None:
        self._settings = settings
        self._client = client
        self._on_answer = on_answer
        self._clock = MonotonicClock()
        self._requests = 0
        self._bytes = 0
        self.outcomes: list[RequestOutcome] = []

    async def send_all(self, schedule: list[_Planned], group: asyncio.TaskGroup) -> None:
        """Start each request at its instant; `group` holds them until they end."""
        self._clock = MonotonicClock()
        for planned in schedule:
            await self._wait_until(planned.arrival.arrival_us)
            if self._has_room(planned):
                self._requests += 1
                self._bytes += len(planned.request.message)
                group.create_task(self._send(planned))
            else:
                self._end(planned, self._clock.now_us(), NOT_SENT, "too much is under way")

    async def _wait_until(self, at_us: Micros) -> None:
        """Return at that instant or just after; let others run once in any case."""
        left_us = at_us - self._clock.now_us()
        await asyncio.sleep(seconds_from_micros(max(0, left_us)))
        if self._clock.now_us() < at_us:  # some loops wake up a little early
            await self._wait_until(at_us)

    def _has_room(self, planned: _Planned) -> bool:
        size = self._bytes + len(planned.request.message)
        return (
            self._requests < self._settings.in_flight_requests
            and size <= self._settings.in_flight_bytes
        )

    async def _send(self, planned: _Planned) -> None:
        try:
            await self._ask(planned)
        finally:
            self._requests -= 1
            self._bytes -= len(planned.request.message)

    async def _ask(self, planned: _Planned) -> None:
        sent_us = self._clock.now_us()
        left_us = planned.arrival.arrival_us + self._settings.deadline_us - sent_us
        if left_us <= 0:
            self._end(planned, sent_us, NOT_SENT, "the load generator was too late")
            return
        message = planned.request.message
        try:
            reply = await self._client.infer_encoded(
                message, deadline_us=left_us, turn=planned.number
            )
        except RequestFailed as failure:
            self._end(planned, sent_us, failure.status, failure.details)
            return
        outcome = self._end(planned, sent_us, OK, "")
        if self._on_answer is not None:
            self._on_answer(outcome, decode_answer(reply))

    def _end(self, planned: _Planned, sent_us: Micros, status: str, details: str) -> RequestOutcome:
        outcome = RequestOutcome(
            number=planned.number,
            model=planned.arrival.model,
            samples=planned.arrival.samples,
            first_row=planned.request.first_row,
            slo_us=planned.slo_us,
            intended_us=planned.arrival.arrival_us,
            sent_us=sent_us,
            ended_us=self._clock.now_us(),
            status=status,
            details=details,
        )
        self.outcomes.append(outcome)
        return outcome


async def _report(sender: _Sender, total: int, on_progress: OnProgress) -> None:
    while len(sender.outcomes) < total:
        on_progress(len(sender.outcomes), total)
        await asyncio.sleep(_PROGRESS_S)
    on_progress(total, total)

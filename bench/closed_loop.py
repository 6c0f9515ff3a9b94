"""Closed-loop load: some callers, each of whom sends its next request when it has its answer.

For what a server can do at most and for the latency it has when it is not crowded; latencies of a
closed loop say nothing of a server under load from independent clients (`client.load` does). Sends
bytes and does not decode answers: the client's own work must not show. Knows no particular server.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from client.infer import EncodedStream, InferenceClient
from penstock.domain.units import US_PER_SECOND, Micros

_NS_PER_US = 1_000
_CONNECT_US = 10 * US_PER_SECOND
_DEADLINE_US = 60 * US_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """A load.

    Attributes:
        request: an encoded ``ModelInferRequest``.
        callers: requests under way at once.
        stream: over one stream instead of a call for each.
        connections: TCP connections, used in turn; a stream takes one.
        warm_up_s: sent before anything is counted.
        seconds: counted.
    """

    address: str
    request: bytes
    callers: int
    stream: bool
    seconds: float
    warm_up_s: float = 1.0
    connections: int = 1


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came of it; answers and durations from after the warm-up only.

    Attributes:
        span_us: from the first that counts to the last.
        processor_us: what this process, the client, used in that time.
    """

    latencies_us: list[Micros] = field(default_factory=list)
    answer_bytes: int = 0
    span_us: Micros = 0
    processor_us: Micros = 0

    @property
    def answers(self) -> int:
        """How many came."""
        return len(self.latencies_us)

    @property
    def rate_rps(self) -> float:
        """Answers per second."""
        return self.answers * US_PER_SECOND / self.span_us

    def quantile_ms(self, quantile: float) -> float:
        """Return the latency that this part of the answers did not exceed."""
        ordered = sorted(self.latencies_us)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] / 1_000


class EncodedClient(Protocol):
    """Whoever sends requests, and returns answers, that are encoded in a protocol of its own."""

    async def infer_encoded(self, request: bytes, *, deadline_us: Micros, turn: int) -> bytes:
        """Send one request and return its answer; `turn` is the caller's number.

        Raises:
            RequestFailed: there is no answer.
        """
        ...


class _Watch:
    """Notes what counts: from the end of the warm-up to the end."""

    def __init__(self, load: ClosedLoop) -> None:
        self._begin_ns = time.monotonic_ns() + int(load.warm_up_s * 1e9)
        self._end_ns = self._begin_ns + int(load.seconds * 1e9)
        self._first: tuple[int, int] | None = None
        self.measured = Measured()

    @property
    def over(self) -> bool:
        return time.monotonic_ns() >= self._end_ns

    def note(self, sent_ns: int, answer: bytes) -> None:
        now_ns = time.monotonic_ns()
        if sent_ns < self._begin_ns or now_ns > self._end_ns:
            return
        if self._first is None:
            self._first = (sent_ns, time.process_time_ns())
        first_ns, processor_ns = self._first
        measured = self.measured
        measured.latencies_us.append((now_ns - sent_ns) // _NS_PER_US)
        measured.answer_bytes = len(answer)
        measured.span_us = (now_ns - first_ns) // _NS_PER_US
        measured.processor_us = (time.process_time_ns() - processor_ns) // _NS_PER_US


async def run_closed_loop(load: ClosedLoop) -> Measured:
    """Send a load.

    Raises:
        RequestFailed: a request was not answered; nothing is measured then.
    """
    async with InferenceClient(load.address, connections=load.connections) as client:
        await client.wait_connected(_CONNECT_US)
        if not load.stream:
            return await run_calls(load, client)
        watch = _Watch(load)
        async with client.encoded_stream() as stream:
            await _Conversation(load, watch, stream).run()
    return watch.measured


async def run_calls(load: ClosedLoop, client: EncodedClient) -> Measured:
    """Send a load of calls over connections that stand already.

    Raises:
        RequestFailed: a request was not answered; nothing is measured then.
    """
    watch = _Watch(load)
    async with asyncio.TaskGroup() as group:
        for number in range(load.callers):
            group.create_task(_call(load, watch, client, number))
    return watch.measured


def together(measured: Sequence[Measured]) -> Measured:
    """Return several rounds as one."""
    return Measured(
        latencies_us=[each for one in measured for each in one.latencies_us],
        answer_bytes=measured[-1].answer_bytes,
        span_us=sum(each.span_us for each in measured),
        processor_us=sum(each.processor_us for each in measured),
    )


async def _call(load: ClosedLoop, watch: _Watch, client: EncodedClient, number: int) -> None:
    while not watch.over:
        sent_ns = time.monotonic_ns()
        answer = await client.infer_encoded(load.request, deadline_us=_DEADLINE_US, turn=number)
        watch.note(sent_ns, answer)


class _Conversation:
    """One stream, answered in the order asked."""

    def __init__(self, load: ClosedLoop, watch: _Watch, stream: EncodedStream) -> None:
        self._load = load
        self._watch = watch
        self._stream = stream
        self._room = asyncio.Semaphore(load.callers)
        self._sent_ns: deque[int] = deque()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            group.create_task(self._read())

    async def _write(self) -> None:
        while not self._watch.over:
            await self._room.acquire()
            self._sent_ns.append(time.monotonic_ns())
            await self._stream.write(self._load.request)
        await self._stream.done_writing()

    async def _read(self) -> None:
        while (answer := await self._stream.read()) is not None:
            self._watch.note(self._sent_ns.popleft(), answer)
            self._room.release()

"""What clients do to a frontend that others use too: each thing begins, lasts, and ends.

Knows what is done and what became of its own requests; nothing of who is disturbed, or how much.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import grpc

from bench.identity import DATATYPE
from bench.raw_calls import WIDE_WINDOW, RawConnection
from client.infer import InferenceClient, RequestFailed
from client.messages import infer_message
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Bytes
from protos import inference_pb2 as pb
from protos import inference_pb2_grpc

Told: TypeAlias = Mapping[str, object]

HALF_SENDERS, HALF_SENDERS_PER_S, HALVES = 10, 20.0, 4
UNREAD, UNREAD_RPS = 24, 10.0  # large answers that one client asks for and does not take
LARGE_ROWS = 32
FULL_RPS = 10.0
OK = "OK"

_PATIENCE_S = 5.0
_SMALL_BUFFER_BYTES = 1 << 16
_ELEMENT_BYTES = 4
_DEADLINE_US = 10 * US_PER_SECOND
_SHARED_MEMORY = Path("/dev/shm")  # it is where POSIX objects are, nothing temporary


class Disturbance(Protocol):
    """Something that goes on until it is ended; begins when it is made."""

    def end(self) -> Told:
        """Stop, leave nothing behind, and tell what was done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """The model that large requests are for, and the regions that some of them name.

    Attributes:
        row_bytes: of one sample, in and out.
        region: of shared memory, as long as a large request's tensor; inputs and outputs lie there.
    """

    address: str
    model: str
    row_bytes: Bytes
    region: str

    @property
    def large_bytes(self) -> Bytes:
        """Of a large request's tensor."""
        return LARGE_ROWS * self.row_bytes

    def large_request(self) -> bytes:
        """Return a request that carries its tensor."""
        shape = (LARGE_ROWS, self.row_bytes // _ELEMENT_BYTES)
        tensor = Tensor("x", DATATYPE, shape, bytes(self.large_bytes))
        return infer_message(self.model, [tensor]).SerializeToString()

    def region_request(self, *, outputs: bool) -> bytes:
        """Return one whose tensor lies in the region; `outputs`: and whose answer goes there."""
        message = pb.ModelInferRequest(model_name=self.model)
        shape = (LARGE_ROWS, self.row_bytes // _ELEMENT_BYTES)
        self._put(message.inputs.add(name="x", datatype=DATATYPE, shape=shape).parameters)
        if outputs:
            self._put(message.outputs.add(name="y").parameters)
        return message.SerializeToString()

    def _put(self, parameters: Mapping[str, pb.InferParameter]) -> None:
        parameters["shared_memory_region"].string_param = self.region
        parameters["shared_memory_byte_size"].int64_param = self.large_bytes


class _Paced:
    """Does something several times at a steady rate; a burst would be a disturbance of its own.

    Args:
        step: done in a thread; gets how often it was done before.
        most: times.
        rate_per_s: of them.
    """

    def __init__(self, step: Callable[[int], None], most: int, rate_per_s: float) -> None:
        self._step = step
        self._most = most
        self._pause_s = 1 / rate_per_s
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._done = 0
        self._thread.start()

    def stop(self) -> int:
        """Stop, and return how often it was done."""
        self._enough.set()
        self._thread.join()
        return self._done

    def _run(self) -> None:
        while self._done < self._most and not self._enough.wait(self._pause_s):
            self._step(self._done)
            self._done += 1


class HalfMessages:
    """Clients that send half of some messages and stall; every other one amid a frame."""

    def __init__(self, victim: Victim) -> None:
        self._address = victim.address
        self._message = victim.large_request()
        self._connections: list[RawConnection] = []
        self._sent_bytes = 0
        self._paced = _Paced(self._send, HALF_SENDERS, HALF_SENDERS_PER_S)

    def end(self) -> Told:
        """Hang up."""
        senders = self._paced.stop()
        for each in self._connections:
            each.close()
        return {"halves": senders * HALVES, "half_bytes": self._sent_bytes}

    def _send(self, number: int) -> None:
        connection = RawConnection(self._address)
        self._connections.append(connection)
        for left in reversed(range(HALVES)):
            amid = left == 0 and number % 2 == 0
            self._sent_bytes += connection.ask_half(self._message, amid_frame=amid)


class UnreadAnswers:
    """Two clients that ask for large answers: one reads nothing, one opens no window for them."""

    def __init__(self, victim: Victim) -> None:
        self._message = victim.region_request(outputs=False)
        self._deaf = RawConnection(victim.address, WIDE_WINDOW, _SMALL_BUFFER_BYTES)
        self._windowless = RawConnection(victim.address, window_bytes=0)
        self._paced = _Paced(self._ask, UNREAD, UNREAD_RPS)

    def end(self) -> Told:
        """Hang up."""
        asked = 2 * self._paced.stop()
        came = self._windowless.hear()
        for each in (self._deaf, self._windowless):
            each.close()
        return {"unread": asked, "windowless_bytes": came}

    def _ask(self, _number: int) -> None:
        for each in (self._deaf, self._windowless):
            each.ask(self._message)


class LargeLoad:
    """Large requests at a steady rate, by turns in the message and in a region of shared memory.

    What makes memory scarce is not its business.
    """

    def __init__(self, victim: Victim, seconds: float) -> None:
        self._victim = victim
        self._requests = max(2, round(seconds * FULL_RPS))
        self._statuses: Counter[str] = Counter()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))
        self._thread.start()

    def end(self) -> Told:
        """Wait for what is under way; then, as memory is there again, ask once more."""
        self._thread.join()
        return {"statuses": dict(self._statuses), "afterwards": asyncio.run(self._once_more())}

    async def _send(self) -> None:
        requests = {
            "message": self._victim.large_request(),
            "region": self._victim.region_request(outputs=True),
        }
        kinds = [*requests] * (self._requests // 2)
        begin_s = time.monotonic()
        async with InferenceClient(self._victim.address) as client, asyncio.TaskGroup() as group:
            for number, kind in enumerate(kinds):
                await asyncio.sleep(begin_s + number / FULL_RPS - time.monotonic())
                group.create_task(self._count(client, kind, requests[kind]))

    async def _count(self, client: InferenceClient, kind: str, request: bytes) -> None:
        self._statuses[f"{kind} {await _status(client, request)}"] += 1

    async def _once_more(self) -> str:
        async with InferenceClient(self._victim.address) as client:
            return await _status(client, self._victim.region_request(outputs=True))


def makers(victim: Victim, seconds: float) -> Mapping[str, Callable[[], Disturbance]]:
    """Return what begins each disturbance.

    Args:
        victim: whom it is done to.
        seconds: how long those last that end by themselves.
    """
    return {
        "half-sent": lambda: HalfMessages(victim),
        "unread": lambda: UnreadAnswers(victim),
        "memory-full": lambda: LargeLoad(victim, seconds),
    }


@contextmanager
def a_victim(address: str, model: str, row_bytes: Bytes) -> Iterator[Victim]:
    """Yield a victim whose region is registered until the block ends."""
    name = f"penstock-stalls-{os.getpid()}"
    victim = Victim(address=address, model=model, row_bytes=row_bytes, region=name)
    with _an_object(name, victim.large_bytes), grpc.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(
                name=name, key=f"/{name}", byte_size=victim.large_bytes
            )
        )
        try:
            yield victim
        finally:
            gone = pb.SystemSharedMemoryUnregisterRequest(name=name)
            with suppress(grpc.RpcError):  # the server may have gone first
                stub.SystemSharedMemoryUnregister(gone, timeout=_PATIENCE_S)


@contextmanager
def _an_object(name: str, size: Bytes) -> Iterator[None]:
    """Have a POSIX shared memory object of zeros."""
    path = _SHARED_MEMORY / name
    path.write_bytes(bytes(size))
    try:
        yield
    finally:
        path.unlink()


async def _status(client: InferenceClient, request: bytes) -> str:
    try:
        await client.infer_encoded(request, deadline_us=_DEADLINE_US, turn=0)
    except RequestFailed as failure:
        return failure.status
    return OK

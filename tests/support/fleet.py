"""A frontend's side of the wire without a frontend, and workers to try it with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from frontend.control import ControlService
from frontend.courier import Payloads
from frontend.ingress import JoinedTensor
from frontend.local_couriers import LocalCouriers
from frontend.membership import Membership
from frontend.performer import Performer
from penstock.aio.clock import MonotonicClock
from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.plan import Plan
from penstock.domain.requests import Slice
from penstock.domain.tensors import Tensor
from penstock.rpc.channels import new_server
from penstock.rpc.links import LinkReceiver
from penstock.scheduling.effects import CompleteRequest, DropRequest, Hop, RunBatch
from penstock.scheduling.events import Event
from protos.control_pb2_grpc import add_ControlServicer_to_server

ROOT = Path(__file__).parents[2]
SLICES = (Slice(RequestId(0), 0, 2),)

E = TypeVar("E", bound=Event)


@dataclass
class FakePayloads:
    """Holds one batch's inputs, and the outputs that come back, unless it is to refuse them."""

    inputs: list[JoinedTensor] = field(default_factory=list)
    refusal: Exception | None = None
    gathered: list[Sequence[Slice]] = field(default_factory=list)
    scattered: list[tuple[Tensor, ...]] = field(default_factory=list)
    scattered_to: list[Sequence[Slice]] = field(default_factory=list)
    ended: list[CompleteRequest | DropRequest] = field(default_factory=list)

    def gather(self, slices: Sequence[Slice]) -> Sequence[JoinedTensor]:
        assert slices
        self.gathered.append(slices)
        return self.inputs

    def scatter(self, slices: Sequence[Slice], tensors: Sequence[Tensor]) -> None:
        assert slices
        if self.refusal is not None:
            raise self.refusal
        self.scattered.append(tuple(tensors))
        self.scattered_to.append(slices)

    def finish(self, effect: CompleteRequest) -> None:
        self.ended.append(effect)

    def drop(self, effect: DropRequest) -> None:
        self.ended.append(effect)


class Inbox:
    """Events in the order they were posted; a test may wait for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def post(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, wanted: Callable[[list[Event]], bool], limit_s: float = 60.0) -> None:
        async with asyncio.timeout(limit_s):
            while not wanted(self.events):
                self._news.clear()
                await self._news.wait()

    def of(self, kind: type[E]) -> list[E]:
        return [each for each in self.events if isinstance(each, kind)]

    async def count(self, kind: type[Event], number: int = 1) -> None:
        await self.until(lambda _: len(self.of(kind)) >= number)


def a_performer(
    payloads: Payloads,
    post: Callable[[Event], None],
    now_us: Callable[[], int],
    reply_to: str,
    overran: Callable[[InstanceId, int], None],
) -> Performer:
    """Return a performer whose process holds the requests itself."""
    return Performer(
        lambda performer: LocalCouriers(performer, payloads, post, now_us, reply_to), post, overran
    )


@dataclass
class FrontendSide:
    """Membership, performer and their servers; a test plays the dispatcher."""

    inbox: Inbox
    payloads: FakePayloads
    performer: Performer
    membership: Membership
    control: str
    clock: MonotonicClock
    overruns: list[int]

    def run_batch(
        self, batch: int, *instances: str, samples: int = 2, abandon_in_us: int = 10_000_000
    ) -> None:
        now_us = self.clock.now_us()
        self.performer.perform(
            RunBatch(
                batch=BatchId(batch),
                model=ModelName("m"),
                pipeline=PipelineId("m.0"),
                route=tuple(
                    Hop(instance=InstanceId(each), start_us=now_us, end_us=now_us, sequence=batch)
                    for each in instances
                ),
                slices=(Slice(RequestId(batch), 0, samples),),
                abandon_us=now_us + abandon_in_us,
                completion_us=now_us,
            )
        )


@asynccontextmanager
async def frontend_side(
    plan: Plan, *, heartbeat_us: int = 1_000_000, port: int = 0
) -> AsyncIterator[FrontendSide]:
    inbox, payloads, clock = Inbox(), FakePayloads(), MonotonicClock()
    overruns: list[int] = []
    server = new_server()
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    performer = a_performer(
        payloads,
        inbox.post,
        clock.now_us,
        address,
        overran=lambda _, us: overruns.append(us),
    )
    receiver = LinkReceiver(performer.on_frame, performer.on_peer_lost)
    membership = Membership(
        plan,
        versions={model.model: "1" for model in plan.models},
        frontend_link=address,
        links=performer,
        post=inbox.post,
        heartbeat_us=heartbeat_us,
    )
    add_ControlServicer_to_server(ControlService(membership), server)
    server.add_generic_rpc_handlers((receiver.handler(),))
    await server.start()
    try:
        yield FrontendSide(inbox, payloads, performer, membership, address, clock, overruns)
    finally:
        receiver.close()
        membership.close()
        await performer.close()
        await server.stop(grace=0)


class WorkerProcess:
    """A real supervisor, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, limit_s: float = 15.0) -> int:
        return await asyncio.wait_for(self._process.wait(), limit_s)

    async def said(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def worker_process(
    frontend: str,
    repository: Path,
    *,
    gpu_class: str = "fast",
    executor: str = "emulated-shapes",
    worker_id: str = "w0",
    flags: Sequence[str] = (),
) -> AsyncIterator[WorkerProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *("--frontend", frontend, "--gpu-class", gpu_class, "--executor", executor),
        *("--repository", str(repository), "--worker-id", worker_id),
        *flags,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        await worker.kill()


def alive(process_id: int) -> bool:
    """Whether a process runs; one that waits for its parent to read its end does not."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children_of(process_id: int) -> list[int]:
    found = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return [int(each) for each in found]


async def gone(process_ids: Sequence[int], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while any(alive(each) for each in process_ids):  # noqa: ASYNC110  # the kernel tells no one
            await asyncio.sleep(0.02)


def fp32(name: str, rows: int, width: int, data: bytes | None = None) -> JoinedTensor:
    size = 4 * rows * width
    return JoinedTensor(name, "FP32", (rows, width), [data if data is not None else bytes(size)])


def kill(process_id: int) -> None:
    os.kill(process_id, signal.SIGKILL)

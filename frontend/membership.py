"""Who belongs to the fleet: workers attach, take a slot of the plan, and load its instances.

A slot is one GPU's worth of instances. A worker whose class has no free slot waits as a spare and
takes over when one is freed. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from penstock.domain.ids import GpuClassName, InstanceId, ModelName, PoolId, ServerId
from penstock.domain.placement import GpuSlot, PlannedInstance, gpu_slots
from penstock.domain.plan import Plan
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.rpc.execution import computation_of, execution_message
from penstock.rpc.links import LinkLost
from penstock.scheduling.events import Event, InstanceJoined, InstanceLost
from penstock.shares.base import Obtained
from protos.control_pb2 import (
    InstanceGone,
    InstanceReady,
    LoadInstance,
    ObtainedShare,
    Refused,
    UnloadInstance,
    Welcome,
    WorkerCommand,
    WorkerHello,
    WorkerMessage,
)

_CONNECT_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class Links(Protocol):
    """How instances are reached."""

    async def connect(self, instance: InstanceId, address: str) -> None:
        """Open the link to an instance.

        Raises:
            LinkLost: it cannot be reached.
        """
        ...

    def disconnect(self, instance: InstanceId) -> None:
        """End the link to an instance, if there is one."""
        ...


class InstanceState(Enum):
    """Where an instance stands."""

    ABSENT = "absent"  # no worker has its slot
    LOADING = "loading"
    READY = "ready"
    CRASHED = "crashed"  # its worker starts it again
    FAILED = "failed"  # its worker cannot run it


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One planned instance, as the status page shows it.

    Attributes:
        detail: why it is not ready; empty if it is or soon will be.
        computation: how it computes, in words; empty if it is not ready or computes nothing.
        share: what it really got of its device, in words; empty if that is not known.
    """

    instance: InstanceId
    state: InstanceState
    detail: str
    address: str
    process_id: int
    load_us: Micros
    computation: str = ""
    share: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One attached worker. A spare has no instances.

    Attributes:
        share: how its instances share the device, in words.
    """

    worker: str
    gpu_class: str
    server: str
    executor: str
    device: str
    memory_bytes: int
    version: str
    share: str
    instances: tuple[InstanceStatus, ...]

    @property
    def emulated(self) -> bool:
        """Whether it only behaves like its GPU class."""
        return self.executor.startswith("emulated")


@dataclass(slots=True, eq=False)
class _Instance:
    planned: PlannedInstance
    state: InstanceState = InstanceState.ABSENT
    detail: str = ""
    ready: InstanceReady = field(default_factory=InstanceReady)
    joining: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Seat:
    """A slot and who has it."""

    slot: GpuSlot
    holder: Member | None = None


@dataclass(slots=True, eq=False)
class Member:
    """An attached worker.

    Attributes:
        commands: to be sent to it, in order; None ends the conversation.
        unfit: why it gets no slot any more; empty if it may.
    """

    hello: WorkerHello
    commands: asyncio.Queue[WorkerCommand | None] = field(default_factory=asyncio.Queue)
    unfit: str = ""


class Membership:
    """Seats workers on the plan's slots.

    Invariant: a seat has at most one holder, a worker at most one seat.

    Args:
        plan: what is served.
        versions: version of each planned model in the repositories.
        frontend_link: host:port that instances send reports and results to.
        links: how instances are reached.
        post: hands an event to the dispatcher.
        heartbeat_us: how often a worker is to show that it lives.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        versions: Mapping[ModelName, str],
        frontend_link: str,
        links: Links,
        post: Callable[[Event], None],
        heartbeat_us: Micros = US_PER_SECOND,
    ) -> None:
        self._plan = plan
        self._versions = versions
        self._frontend_link = frontend_link
        self._links = links
        self._post = post
        self.heartbeat_us = heartbeat_us
        self._seats = [_Seat(slot) for slot in gpu_slots(plan)]
        self._instances = {
            each.id: _Instance(each) for seat in self._seats for each in seat.slot.instances
        }
        self._members: dict[str, Member] = {}

    # What others ask

    @property
    def complete(self) -> bool:
        """Whether every planned instance is ready."""
        return all(each.state is InstanceState.READY for each in self._instances.values())

    @property
    def emulated(self) -> bool:
        """Whether some attached worker only behaves like its GPU class."""
        return any(each.emulated for each in self.snapshot())

    def missing(self) -> Mapping[GpuClassName, int]:
        """Return how many workers of which class the plan still lacks."""
        return Counter(seat.slot.gpu_class for seat in self._seats if seat.holder is None)

    def snapshot(self) -> tuple[WorkerStatus, ...]:
        """Return the attached workers, in the order they came."""
        return tuple(self._status(member) for member in self._members.values())

    # What workers say

    def enter(self, hello: WorkerHello) -> Member | str:
        """Take a worker in, or say why not.

        A worker of a name that is here already takes its place: it has lost its connection and
        we have not noticed yet. If two workers share a name by mistake, the older one is told so
        and ends.
        """
        refusal = self._refusal(hello)
        if refusal:
            return refusal
        older = self._members.get(hello.worker_id)
        if older is not None:
            older.commands.put_nowait(_refused(f"another worker is called {hello.worker_id!r}"))
            self.leave(older, "a newer worker has its name")
        member = Member(hello)
        self._members[hello.worker_id] = member
        welcome = Welcome(heartbeat_interval_us=self.heartbeat_us)
        member.commands.put_nowait(WorkerCommand(welcome=welcome))
        _log.info("worker %s attached: %s, %s", hello.worker_id, hello.gpu_class, hello.executor)
        self._fill()
        return member

    def hear(self, member: Member, message: WorkerMessage) -> None:
        """Take one message of a worker; one that left is not listened to."""
        if self._members.get(member.hello.worker_id) is not member:
            return
        match message.WhichOneof("kind"):
            case "ready":
                self._ready(member, message.ready)
            case "gone":
                self._gone(member, message.gone)
            case "heartbeat":
                pass
            case kind:
                _log.warning("worker %s sent a %s", member.hello.worker_id, kind)

    def leave(self, member: Member, reason: str) -> None:
        """Take a worker's loss: its instances are lost and its seat is free."""
        if self._members.get(member.hello.worker_id) is not member:
            return
        del self._members[member.hello.worker_id]
        member.commands.put_nowait(None)
        _log.warning("worker %s left: %s", member.hello.worker_id, reason)
        self._vacate(member)
        self._fill()

    def close(self) -> None:
        """Let all workers go; posts nothing."""
        for instance in self._instances.values():
            _stop_joining(instance)
        for member in self._members.values():
            member.commands.put_nowait(None)
        self._members.clear()

    def _refusal(self, hello: WorkerHello) -> str:
        if not hello.worker_id:
            return "a worker needs a name"
        known = {each.name for each in self._plan.gpu_classes}
        known |= {seat.slot.gpu_class for seat in self._seats}
        if hello.gpu_class not in known:
            listed = ", ".join(sorted(known))
            return f"the plan knows no GPU class {hello.gpu_class!r}; it knows {listed}"
        return ""

    # Seats

    def _fill(self) -> None:
        """Give free seats to spares of their class, first come, first served."""
        seated = [seat.holder for seat in self._seats]
        spares = [each for each in self._members.values() if each not in seated and not each.unfit]
        for seat in self._seats:
            if seat.holder is not None:
                continue
            fitting = [each for each in spares if each.hello.gpu_class == seat.slot.gpu_class]
            if fitting:
                spares.remove(fitting[0])
                self._seat(seat, fitting[0])

    def _seat(self, seat: _Seat, member: Member) -> None:
        seat.holder = member
        for planned in seat.slot.instances:
            instance = self._instances[planned.id]
            instance.state, instance.detail = InstanceState.LOADING, ""
            member.commands.put_nowait(WorkerCommand(load=self._load(planned)))

    def _vacate(self, member: Member) -> None:
        seat = self._seat_of(member)
        if seat is None:
            return
        seat.holder = None
        for planned in seat.slot.instances:
            self._lose(self._instances[planned.id], InstanceState.ABSENT, "")

    def _seat_of(self, member: Member) -> _Seat | None:
        return next((seat for seat in self._seats if seat.holder is member), None)

    def _load(self, planned: PlannedInstance) -> LoadInstance:
        model = self._plan.model(planned.model)
        pool = model.pool(planned.pool)
        return LoadInstance(
            instance_id=planned.id,
            model=planned.model,
            version=self._versions[planned.model],
            first_block=pool.first_block,
            end_block=pool.end_block,
            share_numerator=pool.share.numerator,
            share_denominator=pool.share.denominator,
            batch=pool.batch,
            latency_us_by_batch=pool.latency_us_by_batch,
            blocks_sha256=model.blocks_digest,
            frontend_link=self._frontend_link,
            execution=execution_message(model.execution),
        )

    # Instances

    def _ready(self, member: Member, ready: InstanceReady) -> None:
        instance = self._held(member, ready.instance_id)
        if instance is None:
            return
        self._lose(instance, InstanceState.LOADING, "")
        instance.ready = ready
        server = ServerId(member.hello.server)
        instance.joining = asyncio.create_task(self._join(instance, server))

    async def _join(self, instance: _Instance, server: ServerId) -> None:
        """Open the link, then let the dispatcher use the instance."""
        planned, address = instance.planned, instance.ready.address
        while True:
            try:
                await self._links.connect(planned.id, address)
                break
            except LinkLost as error:
                instance.detail = f"{error}; does the worker need --host?"
                _log.warning("instance %s is ready, but %s", planned.id, instance.detail)
                await asyncio.sleep(_CONNECT_PAUSE_S)
        instance.state, instance.detail = InstanceState.READY, ""
        self._post(
            InstanceJoined(
                instance=planned.id, model=planned.model, pool=PoolId(planned.pool), server=server
            )
        )

    def _gone(self, member: Member, gone: InstanceGone) -> None:
        instance = self._held(member, gone.instance_id)
        if instance is None:
            return
        state = InstanceState.FAILED if gone.load_failed else InstanceState.CRASHED
        _log.warning("instance %s %s: %s", gone.instance_id, state.value, gone.reason)
        self._lose(instance, state, gone.reason)
        if gone.load_failed:
            self._replace(member, gone.reason)

    def _replace(self, member: Member, reason: str) -> None:
        """Hand an unfit worker's seat to a spare, if there is one."""
        seat = self._seat_of(member)
        if seat is None or not self._has_spare(seat.slot.gpu_class):
            return
        member.unfit = reason
        for planned in seat.slot.instances:
            unload = UnloadInstance(instance_id=planned.id)
            member.commands.put_nowait(WorkerCommand(unload=unload))
        self._vacate(member)
        self._fill()

    def _has_spare(self, gpu_class: GpuClassName) -> bool:
        return any(
            each.hello.gpu_class == gpu_class and not each.unfit and self._seat_of(each) is None
            for each in self._members.values()
        )

    def _lose(self, instance: _Instance, state: InstanceState, detail: str) -> None:
        """Take an instance from the dispatcher; it ignores what it did not have."""
        _stop_joining(instance)
        was_ready = instance.state is InstanceState.READY
        instance.state, instance.detail, instance.ready = state, detail, InstanceReady()
        self._links.disconnect(instance.planned.id)
        if was_ready:
            self._post(InstanceLost(instance.planned.id))

    def _held(self, member: Member, instance_id: str) -> _Instance | None:
        """Return an instance if it is on this worker's seat."""
        seat = self._seat_of(member)
        if seat is None or all(each.id != instance_id for each in seat.slot.instances):
            return None
        return self._instances[InstanceId(instance_id)]

    def _status(self, member: Member) -> WorkerStatus:
        seat = self._seat_of(member)
        planned: Sequence[PlannedInstance] = seat.slot.instances if seat else ()
        return WorkerStatus(
            worker=member.hello.worker_id,
            gpu_class=member.hello.gpu_class,
            server=member.hello.server,
            executor=member.hello.executor,
            device=member.hello.device,
            memory_bytes=member.hello.memory_bytes,
            version=member.hello.version,
            share=_sharing(member.hello),
            instances=tuple(_instance_status(self._instances[each.id]) for each in planned),
        )


def _instance_status(instance: _Instance) -> InstanceStatus:
    return InstanceStatus(
        instance=instance.planned.id,
        state=instance.state,
        detail=instance.detail,
        address=instance.ready.address,
        process_id=instance.ready.process_id,
        load_us=instance.ready.load_us,
        computation=computation_of(instance.ready.computation).words,
        share=_share_words(instance.ready.share),
    )


def _sharing(hello: WorkerHello) -> str:
    """Return how a worker's instances share its device: the mechanism, and in which processes."""
    note = f" ({hello.share_note})" if hello.share_note else ""
    return f"{hello.share or 'none'}{note}, a process per {hello.process_per or 'instance'}"


def _share_words(share: ObtainedShare) -> str:
    return Obtained(share.mechanism, share.sms, share.device_sms).words


def _stop_joining(instance: _Instance) -> None:
    if instance.joining is not None:
        instance.joining.cancel()
        instance.joining = None


def _refused(reason: str) -> WorkerCommand:
    return WorkerCommand(refused=Refused(reason=reason))

"""Does what the dispatcher wants done with batches, and tells it what came of them.

Holds one link to every instance and takes their reports; rows are the couriers' business. Knows
nothing of plans, workers, policies or tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from frontend.instance_links import InstanceLinks
from frontend.link_lines import OnwardLinks
from penstock.domain.ids import BatchId, InstanceId
from penstock.domain.units import Micros
from penstock.rpc.links import FRONTEND
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Effect,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    Event,
    InstanceLost,
    StageFinished,
)
from protos import link_pb2
from protos.link_pb2 import BatchResult, FrameHeader, StageReport

_log = logging.getLogger(__name__)


class Couriers(Protocol):
    """Those who hold requests and carry their rows, each by a number of its own."""

    def carry(self, effect: RunBatch) -> Set[int]:
        """Have the rows of a batch sent; return the couriers whose rows have to come back."""
        ...

    def take(self, result: BatchResult, views: Sequence[memoryview]) -> None:
        """Take rows that an instance sent to this process."""
        ...

    def forget(self, batch: BatchId, couriers: Set[int]) -> None:
        """Have no row of a batch that these carry reach a request any more."""
        ...

    def finish(self, effect: CompleteRequest) -> None:
        """Answer a request whose samples have all been delivered."""
        ...

    def drop(self, effect: DropRequest) -> None:
        """End a request without an answer."""
        ...

    def joined(self, instance: InstanceId, address: str) -> None:
        """Take an instance that can be reached."""
        ...

    def parted(self, instance: InstanceId, address: str) -> None:
        """Take the loss of an instance."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch whose rows have not all come back.

    Attributes:
        couriers: all that have rows of it; missing: those whose rows are not back.
        done: hops of its route that have reported.
    """

    instances: tuple[InstanceId, ...]
    couriers: Set[int] = frozenset()
    missing: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)


class Performer:
    """Performs effects; never waits.

    A batch is known from its `RunBatch` until its rows or a failure are here or it is cancelled.
    What comes of a batch that is not known any more reaches no request.

    Args:
        hire: returns those who carry rows for this performer.
        post: hands an event to the dispatcher.
        overran: told by how much a stage was slower than the device it emulates.
    """

    def __init__(
        self,
        hire: Callable[[Performer], Couriers],
        post: Callable[[Event], None],
        overran: Callable[[InstanceId, Micros], None] | None = None,
    ) -> None:
        self._post = post
        self._overran = overran
        self._flights: dict[BatchId, _Flight] = {}
        self.links = InstanceLinks(FRONTEND, self._lose)
        self.onward = OnwardLinks()
        self._couriers = hire(self)

    # Effects

    def perform(self, effect: Effect) -> None:
        """Do what the dispatcher asks for. May post events."""
        match effect:
            case RunBatch():
                self._run(effect)
            case CompleteRequest():
                self._couriers.finish(effect)
            case DropRequest():
                self._couriers.drop(effect)
            case CancelBatch(batch, instances):
                self._cancel(batch, instances)
            case WakeAt():
                pass  # the driver's own
            case _:
                assert_never(effect)

    def _run(self, effect: RunBatch) -> None:
        for hop in effect.route:
            if hop.instance not in self.links:
                self._post(InstanceLost(hop.instance))
                return
        flight = _Flight(tuple(dict.fromkeys([hop.instance for hop in effect.route])))
        self._flights[effect.batch] = flight
        flight.couriers = self._couriers.carry(effect)
        flight.missing = set(flight.couriers)

    def _cancel(self, batch: BatchId, instances: Iterable[InstanceId]) -> None:
        self._forget(batch)
        cancel = link_pb2.CancelBatch(batch_id=batch)
        self.links.tell(instances, FrameHeader(cancel=cancel))

    # Instances

    async def connect(self, instance: InstanceId, address: str) -> None:
        """Open the link to an instance, in place of any earlier one.

        Raises:
            LinkLost: it cannot be reached.
        """
        self.disconnect(instance)
        await self.links.connect(instance, address)
        self._couriers.joined(instance, address)

    def disconnect(self, instance: InstanceId) -> None:
        """End the link to an instance, if there is one; posts nothing."""
        if instance in self.links:
            self._couriers.parted(instance, self.links.address(instance))
            self.onward.forget(instance)
            self.links.disconnect(instance)

    async def close(self) -> None:
        """End all links; posts nothing."""
        await self.links.close()

    def on_peer_lost(self, sender: str) -> None:
        """Take the loss of the link from an instance: without it there are no reports."""
        self.links.on_peer_lost(sender)

    def _lose(self, instance: InstanceId, address: str) -> None:
        self._couriers.parted(instance, address)
        self.onward.forget(instance)
        self._post(InstanceLost(instance))

    # Frames

    def on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        """Take one frame from an instance."""
        match header.WhichOneof("kind"):
            case "report":
                self.reported(header.report)
            case "result":
                if header.result.HasField("report"):
                    self.reported(header.result.report)
                self._couriers.take(header.result, views)
            case "link_opened":
                self.onward.take(sender, header.link_opened)
            case kind:
                _log.warning("%s sent a %s, which a frontend does not take", sender, kind)

    def reported(self, report: StageReport) -> None:
        """Take what an instance says of a batch."""
        batch = BatchId(report.batch_id)
        match report.outcome:
            case StageReport.DONE:
                if report.overrun_us > 0 and self._overran is not None:
                    self._overran(InstanceId(report.instance_id), report.overrun_us)
                if batch in self._flights:
                    self._flights[batch].done.add(report.stage)
                self._post(
                    StageFinished(batch=batch, stage=report.stage, compute_us=report.compute_us)
                )
            case StageReport.ABANDONED:
                detail = f"{report.instance_id} gave the batch up: {report.detail}"
                self._fail(batch, detail, too_late=True)
            case _:
                flight = self._flights.get(batch)
                if report.retriable and flight is not None and report.stage in flight.done:
                    return  # its sender lost the instance after that had sent the batch on
                detail = f"{report.instance_id}: {report.detail}"
                self._fail(batch, detail, retriable=report.retriable)

    # Couriers

    def delivered(self, courier: int, batch: BatchId) -> None:
        """Take that all rows of a courier are with their requests."""
        flight = self._flights.get(batch)
        if flight is not None:
            flight.missing.discard(courier)
            if flight.missing:
                return
            del self._flights[batch]
        self._post(BatchFinished(batch))

    def failed(self, batch: BatchId, detail: str, *, retriable: bool) -> None:
        """Take that a courier cannot do what it has to for a batch."""
        self._fail(batch, detail, retriable=retriable)

    def unreachable(self, instance: InstanceId, address: str) -> None:
        """Take that a courier has no link to an instance, which must not be booked any more.

        Args:
            instance: that was lost.
            address: where it was; nothing happens if it is elsewhere by now.
        """
        if instance in self.links and self.links.address(instance) == address:
            self.disconnect(instance)
            self._post(InstanceLost(instance))

    def batches_of(self, courier: int) -> list[BatchId]:
        """Return the batches under way that have rows of a courier."""
        return [batch for batch, each in self._flights.items() if courier in each.couriers]

    def orphaned(self, batches: Iterable[BatchId]) -> None:
        """Take that a courier is lost, whose rows of these batches may never come.

        Also of batches that were cancelled since: what never reaches an instance is not reported
        by it, and would stay booked.
        """
        for batch in batches:
            self._fail(batch, "a process that held some of its rows was lost", retriable=True)

    def _fail(
        self, batch: BatchId, detail: str, *, too_late: bool = False, retriable: bool = False
    ) -> None:
        flight = self._forget(batch)
        if flight is not None and len(flight.couriers) > 1:  # an instance may wait for more rows
            cancel = link_pb2.CancelBatch(batch_id=batch)
            self.links.tell(flight.instances, FrameHeader(cancel=cancel))
        self._post(BatchFailed(batch=batch, detail=detail, too_late=too_late, retriable=retriable))

    def _forget(self, batch: BatchId) -> _Flight | None:
        flight = self._flights.pop(batch, None)
        if flight is not None:
            self._couriers.forget(batch, flight.couriers)
        return flight

"""The only courier of a frontend whose one process holds the requests and dispatches them.

Between performer and courier; knows neither links nor tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from frontend.courier import Courier, Errand, Payloads
from frontend.performer import Performer
from penstock.domain.ids import BatchId, InstanceId
from penstock.domain.requests import samples_of
from penstock.domain.units import Micros
from penstock.scheduling.effects import CompleteRequest, DropRequest, RunBatch
from penstock.scheduling.events import Event, InstanceLost
from protos.link_pb2 import BatchResult

_HERE = 0


class LocalCouriers:
    """Carries the rows of every batch.

    Args:
        performer: whose batches they are.
        payloads: the open requests.
        post: hands an event to the dispatcher.
        now_us: the dispatcher's clock.
        reply_to: host:port that instances send results to.
    """

    def __init__(
        self,
        performer: Performer,
        payloads: Payloads,
        post: Callable[[Event], None],
        now_us: Callable[[], Micros],
        reply_to: str,
    ) -> None:
        self._performer = performer
        self._payloads = payloads
        self._post = post
        self._courier = Courier(payloads, performer.links, now_us, self, reply_to)

    def carry(self, effect: RunBatch) -> Set[int]:
        """Send the rows of a batch."""
        self._courier.carry(
            Errand(
                batch=effect.batch,
                model=effect.model,
                samples=samples_of(effect.slices),
                route=effect.route,
                slices=effect.slices,
                abandon_us=effect.abandon_us,
            )
        )
        return {_HERE}

    def take(self, result: BatchResult, views: Sequence[memoryview]) -> None:
        """Take rows that an instance sent back."""
        self._courier.take(result, views)

    def forget(self, batch: BatchId, couriers: Set[int]) -> None:
        """Let no row of a batch reach a request any more."""
        del couriers  # there is one
        self._courier.forget(batch)

    def finish(self, effect: CompleteRequest) -> None:
        """Answer a request."""
        self._payloads.finish(effect)

    def drop(self, effect: DropRequest) -> None:
        """End a request without an answer."""
        self._payloads.drop(effect)

    def joined(self, instance: InstanceId, address: str) -> None:
        """Do nothing: the performer's links are ours."""

    def parted(self, instance: InstanceId, address: str) -> None:
        """Do nothing: the performer's links are ours."""

    # What the courier tells

    def delivered(self, batch: BatchId) -> None:
        """All rows of a batch are with their requests."""
        self._performer.delivered(_HERE, batch)

    def failed(self, batch: BatchId, detail: str, *, retriable: bool) -> None:
        """A batch could not be sent, or what came back does not fit."""
        self._performer.failed(batch, detail, retriable=retriable)

    def unreachable(self, instance: InstanceId) -> None:
        """There is no link to an instance any more."""
        self._post(InstanceLost(instance))

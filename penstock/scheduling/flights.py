"""Requests that are open and batches that are on their way: who still owes what to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import Request, Slice
from penstock.domain.units import Micros
from penstock.scheduling.instances import Instance
from penstock.scheduling.offers import Offer


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request without an outcome.

    Attributes:
        unanswered: samples whose result has not come back.
        batches: those that carry samples of it.
        rebooked: how often a batch of it was lost and its samples queued again.
    """

    request: Request
    unanswered: int
    batches: set[BatchId] = field(default_factory=set)
    rebooked: int = 0


@dataclass(slots=True, eq=False)
class Flight:
    """A batch on its way.

    Attributes:
        size: samples in it.
        completion_us: when it was predicted to be answered.
        give_up_us: if nothing was heard by then, it is lost.
        stages_done: the stages that have reported; reports may overtake each other.
    """

    batch: BatchId
    model: ModelName
    pipeline: PipelineId
    slices: tuple[Slice, ...]
    size: int
    instances: tuple[Instance, ...]
    launched_us: Micros
    completion_us: Micros
    give_up_us: Micros
    stages_done: set[int] = field(default_factory=set)

    def pending_instances(self) -> tuple[InstanceId, ...]:
        """Return the instances that have not reported, in order of the route."""
        return tuple(
            each.id for stage, each in enumerate(self.instances) if stage not in self.stages_done
        )

    def finish_stage(self, stage: int, now_us: Micros, compute_us: Micros) -> bool:
        """Correct the booking of one stage and learn from it; return whether predictions moved."""
        if stage in self.stages_done:
            return False
        self.stages_done.add(stage)
        instance = self.instances[stage]
        learned = instance.pool.estimator.observe(self.size, compute_us)
        return instance.finish(self.batch, now_us) or learned

    def release(self) -> None:
        """Forget all its bookings that are left."""
        for stage, instance in enumerate(self.instances):
            if stage not in self.stages_done:
                instance.release(self.batch)
            instance.card.up.release((self.batch, stage + 1))
            instance.card.down.release((self.batch, stage))


def open_flight(
    batch: BatchId,
    offer: Offer,
    slices: tuple[Slice, ...],
    now_us: Micros,
    give_up_us: Micros,
) -> Flight:
    """Return the flight of an offer that was just booked."""
    return Flight(
        batch=batch,
        model=offer.hops[0].instance.model,
        pipeline=offer.pipeline.id,
        slices=slices,
        size=sum(each.count for each in slices),
        instances=tuple(hop.instance for hop in offer.hops),
        launched_us=now_us,
        completion_us=offer.completion_us,
        give_up_us=give_up_us,
    )


def owed(requests: dict[RequestId, OpenRequest], flight: Flight) -> list[OpenRequest]:
    """Return the requests that still wait for this flight, each once."""
    seen: dict[RequestId, OpenRequest] = {}
    for each in flight.slices:
        open_request = requests.get(each.request)
        if open_request is not None:
            seen[each.request] = open_request
    return list(seen.values())

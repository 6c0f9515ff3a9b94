"""What a dispatcher wants done. The driver performs these; the dispatcher never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import DropReason, Slice
from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One stage of a batch's route, as booked, with the whole batch.

    Attributes:
        start_us, end_us: booked compute interval on the instance.
        sequence: place in the order booked on that instance, counted from 0 without gaps.
    """

    instance: InstanceId
    start_us: Micros
    end_us: Micros
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHop:
    """Rows [first, first + count) of a batch at one stage, of a route that cuts the batch.

    It starts when all parts of the stage before that hold some of its rows have come.

    Attributes:
        start_us, end_us, sequence: as of a whole batch.
        stage: place of the stage in the pipeline.
    """

    instance: InstanceId
    start_us: Micros
    end_us: Micros
    sequence: int
    stage: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """Send these slices, joined in order, along the route.

    Attributes:
        route: a hop for each stage, with the whole batch; or `PartHop`s, in order of stage and row.
        abandon_us: the last deadline in the batch; after it nobody waits.
        completion_us: predicted instant at which the answer is back.
    """

    batch: BatchId
    model: ModelName
    pipeline: PipelineId
    route: tuple[PartHop | Hop, ...]
    slices: tuple[Slice, ...]
    abandon_us: Micros
    completion_us: Micros


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """All samples of the request are answered."""

    request: RequestId
    met_deadline: bool


@dataclass(frozen=True, slots=True)
class DropRequest:
    """The request ends without an answer."""

    request: RequestId
    reason: DropReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CancelBatch:
    """Nobody waits for this batch any more; its instances may skip it."""

    batch: BatchId
    instances: tuple[InstanceId, ...]


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send `WakeUp` at that instant, which lies in the future. Replaces any earlier one."""

    at_us: Micros


Effect: TypeAlias = RunBatch | CompleteRequest | DropRequest | CancelBatch | WakeAt

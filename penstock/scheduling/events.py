"""What can happen to a dispatcher. Everything it knows comes in through these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.ids import BatchId, InstanceId, ModelName, PoolId, RequestId, ServerId
from penstock.domain.plan import Plan
from penstock.domain.requests import Request
from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A client asks; `request.arrival_us` is now, or was a moment ago.

    Attributes:
        followed: more arrivals are told right after; nothing is launched before the last of them.
    """

    request: Request
    followed: bool = False


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The client went away."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A hop of a batch is done at its instance: a stage, or a part of one.

    Attributes:
        stage: index of the hop in the batch's route.
        compute_us: how long it computed.
    """

    batch: BatchId
    stage: int
    compute_us: Micros


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """All of the last stage's outputs are here, already stored with the requests."""

    batch: BatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFailed:
    """A batch will not finish.

    Attributes:
        too_late: an instance gave it up because nobody could still be waiting.
        retriable: the fault was a lost connection or instance, not the data.
    """

    batch: BatchId
    detail: str
    too_late: bool = False
    retriable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceJoined:
    """An instance is loaded, warm and ready."""

    instance: InstanceId
    model: ModelName
    pool: PoolId
    server: ServerId


@dataclass(frozen=True, slots=True)
class InstanceLost:
    """An instance is gone, with whatever it was running."""

    instance: InstanceId


@dataclass(frozen=True, slots=True)
class PlanApplied:
    """A plan takes effect. Instances join afterwards."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class WakeUp:
    """The instant asked for by `WakeAt` has come."""


Event: TypeAlias = (
    RequestArrived
    | RequestCancelled
    | StageFinished
    | BatchFinished
    | BatchFailed
    | InstanceJoined
    | InstanceLost
    | PlanApplied
    | WakeUp
)

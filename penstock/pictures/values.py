"""What pictures are drawn from, beside the domain's own values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.domain.ids import BatchId, InstanceId
from penstock.domain.units import Micros


class BusyTime(Protocol):
    """What a timeline needs to know of one batch at one instance; `Interval` is one."""

    @property
    def instance(self) -> InstanceId:
        """The instance that computed."""
        ...

    @property
    def stage(self) -> int:
        """Place of its stage in the pipeline, from 0."""
        ...

    @property
    def batch(self) -> BatchId:
        """The batch it computed."""
        ...

    @property
    def samples(self) -> int:
        """How many samples the batch held."""
        ...

    @property
    def start_us(self) -> Micros:
        """When it began."""
        ...

    @property
    def end_us(self) -> Micros:
        """When it was done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One batch at one instance, from start to end of its computation."""

    instance: InstanceId
    stage: int
    batch: BatchId
    samples: int
    start_us: Micros
    end_us: Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """Attainment at one load.

    Attributes:
        offered_rps: requests per second that were offered.
        attainment: share of them answered within their SLO, 0 to 1.
    """

    offered_rps: float
    attainment: float

"""What pictures are drawn from, beside the domain's own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """Attainment at one load.

    Attributes:
        offered_rps: requests per second that were offered.
        attainment: share of them answered within their SLO, 0 to 1.
    """

    offered_rps: float
    attainment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePoint:
    """What the best plan reaches at one scale of all SLOs.

    Attributes:
        value: None where there is no plan.
        bound: proven: no plan is better.
    """

    scale: float
    value: float | None
    bound: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPoint:
    """The least that one level of throughput takes.

    Attributes:
        level_rps: throughput for each unit of weight.
        spent: per hour, or GPUs; None where there is no plan, or none was found in time.
        bound: proven: it cannot be less.
        gpus: in use, by the name of their class.
        infeasible: proven that there is no plan.
    """

    level_rps: float
    spent: float | None
    bound: float
    gpus: Mapping[str, int]
    infeasible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPoint:
    """One figure of a series under several seeds.

    Attributes:
        x: what it is drawn over.
        low, high: the least and the most of the seeds.
    """

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UsePoint:
    """How busy one GPU class was at one load, as parts of all its GPUs.

    Attributes:
        low, high: the least and the most of the seeds.
        useful: part that was spent on requests answered in time.
        used: part of the GPUs that hold an instance, busy or not.
    """

    load: float
    mean: float
    useful: float
    low: float
    high: float
    used: float

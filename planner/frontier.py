"""Many plans for one fleet: throughput against SLO, and cost against throughput.

Points come one by one, so that a caller can show progress and stop. The time given is split over
what is still to be planned; what a point leaves over goes to those after it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.cluster import Cluster, Objective
from penstock.domain.ids import GpuClassName
from penstock.domain.plan import ObjectiveUnit, Plan
from planner.inputs import Profiles
from planner.planning import make_plan
from planner.solve import SolverName
from planner.usage import cost_per_hour, gpus_used
from planner.variants import Planned, try_plan, with_options, with_rates, with_slos

_LEAST_S = 0.5  # what a point gets even when the time is up
_INSIDE = 1 - 1e-6  # of the greatest throughput: rounding must not put it out of reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What planning reached.

    Attributes:
        found: value of the objective; None if there is no plan, or none was found in time.
        bound: proven: no plan is better; None where there is no plan.
        infeasible: proven that there is no plan.
        why: none was found.
    """

    found: float | None
    bound: float | None
    infeasible: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One scale of all SLOs.

    Attributes:
        pooled: with models cut into stages.
        whole: without.
    """

    scale: float
    pooled: Value
    whole: Value
    unit: ObjectiveUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """The least that one level of throughput takes.

    Attributes:
        level_rps: throughput for each unit of weight.
        spent: per hour, or GPUs where classes have no prices; None if there is no plan, or none
            was found in time.
        bound: proven: it cannot be less; None where there is no plan.
        gpus: in use, by class; empty where there is no plan.
        infeasible: proven that there is no plan.
        why: none was found; empty if one was.
    """

    level_rps: float
    spent: float | None
    bound: float | None
    gpus: Mapping[GpuClassName, int]
    unit: ObjectiveUnit
    infeasible: bool = False
    why: str = ""


def slo_curve(
    cluster: Cluster,
    profiles: Profiles,
    scales: Sequence[float],
    *,
    time_limit_s: float,
    solver: SolverName = "highs",
) -> Iterator[CurvePoint]:
    """Yield the objective's value at each scale of all SLOs, with and without partitioning."""
    clock = _Clock(time_limit_s, 2 * len(scales))
    for scale in scales:
        scaled = with_slos(cluster, scale)
        whole, pooled = (
            _value(try_plan(scaled, profiles, clock.share_s(), solver=solver, partition=partition))
            for partition in (False, True)
        )
        yield CurvePoint(scale=scale, pooled=pooled, whole=whole, unit=_unit(cluster))


def cost_frontier(
    cluster: Cluster,
    profiles: Profiles,
    points: int,
    *,
    time_limit_s: float,
    solver: SolverName = "highs",
) -> Iterator[FrontierPoint]:
    """Yield the least that evenly spaced levels of throughput take, from the fleet's greatest down.

    Models are served in proportion to their weights; rates they ask for are not looked at. What
    serves one level serves those below it too, so a dearer plan for one of those is not taken.
    Where planning a level finds nothing, its point says so; the plan above does not stand in.

    Raises:
        Infeasible: the fleet cannot serve the models at all.
        PlanningFailed: the greatest throughput was not found in time.
    """
    clock = _Clock(time_limit_s, points + 1)
    above = greatest_throughput(cluster, profiles, clock.share_s(), solver=solver)
    most_rps = above.solve.objective_rps
    sought: Objective = "least-cost" if _priced(cluster) else "fewest-gpus"
    for number in range(points, 0, -1):
        level = most_rps * number / points * _INSIDE
        asked = with_options(with_rates(cluster, level), {"objective": sought})
        planned = try_plan(asked, profiles, clock.share_s(), solver=solver)
        if planned.plan is not None and _spent(planned.plan, sought) <= _spent(above, sought):
            above = planned.plan
        yield _point(level, sought, planned, above)


def greatest_throughput(
    cluster: Cluster, profiles: Profiles, time_limit_s: float, *, solver: SolverName = "highs"
) -> Plan:
    """Return the plan with the most throughput per weight, whatever rates the models ask for.

    Raises:
        Infeasible: the fleet cannot serve the models at all.
        PlanningFailed: no plan was found in time.
    """
    asked = {"objective": "max-min", "time_limit_s": time_limit_s}
    return make_plan(with_options(with_rates(cluster, None), asked), profiles, solver=solver)


def _point(level_rps: float, sought: Objective, planned: Planned, best: Plan) -> FrontierPoint:
    """Return a level's point: `best` is what was planned for it, or better."""
    plan = planned.plan
    return FrontierPoint(
        level_rps=level_rps,
        spent=None if plan is None else _spent(best, sought),
        bound=None if plan is None else plan.solve.bound,
        gpus={} if plan is None else gpus_used(best),
        unit="per-hour" if sought == "least-cost" else "gpus",
        infeasible=planned.infeasible,
        why=planned.why,
    )


class _Clock:
    """Splits time over what is still to be done."""

    def __init__(self, seconds: float, parts: int) -> None:
        self._deadline = time.perf_counter() + seconds
        self._parts = parts

    def share_s(self) -> float:
        """Return the seconds of the next part."""
        left_s = self._deadline - time.perf_counter()
        share_s = left_s / max(1, self._parts)
        self._parts -= 1
        return max(_LEAST_S, share_s)


def _priced(cluster: Cluster) -> bool:
    return all(each.price_per_hour is not None for each in cluster.gpu_classes)


def _unit(cluster: Cluster) -> ObjectiveUnit:
    units: Mapping[str, ObjectiveUnit] = {"least-cost": "per-hour", "fewest-gpus": "gpus"}
    return units.get(cluster.options.objective, "rps")


def _value(planned: Planned) -> Value:
    if planned.plan is None:
        return Value(found=None, bound=None, infeasible=planned.infeasible, why=planned.why)
    return Value(found=planned.plan.solve.value, bound=planned.plan.solve.bound)


def _spent(plan: Plan, sought: Objective) -> float:
    cost = cost_per_hour(plan) if sought == "least-cost" else None
    return float(sum(gpus_used(plan).values())) if cost is None else cost

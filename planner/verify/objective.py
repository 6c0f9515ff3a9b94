"""Is the plan worth what its report says, and is that consistent with its bound?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from penstock.domain.cluster import Cluster, Objective
from penstock.domain.plan import ObjectiveUnit, Plan
from planner.verify.gpus import Used, price_per_hour
from planner.verify.subject import TOLERANCE


def objective_faults(plan: Plan, cluster: Cluster, used: Used) -> Iterator[str]:
    """Yield where the report is not true of the plan.

    Args:
        plan: what is checked.
        cluster: gives the prices and the gap that was asked for.
        used: GPUs in use by class.
    """
    solve = plan.solve
    least = _least_weighted_rps(plan)
    if not math.isclose(least, solve.objective_rps, rel_tol=TOLERANCE):
        yield f"objective_rps: is {solve.objective_rps:.3f}, the models have {least:.3f}"
    unit = _unit(solve.objective)
    if solve.unit != unit:
        yield f"unit: is {solve.unit}, {solve.objective} is in {unit}"
    missing = _missing_for(solve.objective, cluster)
    yield from missing
    if not missing:
        value = _value(plan, cluster, used)
        if not math.isclose(value, solve.value, rel_tol=TOLERANCE):
            yield f"value: is {solve.value:.6g}, the plan has {value:.6g} {unit}"
        yield from _bound_faults(plan, value)
    yield from _gap_faults(plan, cluster.options.relative_gap)


def _least_weighted_rps(plan: Plan) -> float:
    return min(model.throughput_rps / model.weight for model in plan.models)


def _unit(objective: Objective) -> ObjectiveUnit:
    if objective == "least-cost":
        return "per-hour"
    return "gpus" if objective == "fewest-gpus" else "rps"


def _missing_for(objective: Objective, cluster: Cluster) -> list[str]:
    """Return what the objective needs and the cluster does not say."""
    found = []
    if objective != "max-min":  # without a rate nothing would keep a model from getting nothing
        found += [
            f"model {each.name}: {objective} needs its rate_rps"
            for each in cluster.models
            if each.rate_rps is None
        ]
    if objective == "least-cost" and price_per_hour({}, cluster) is None:
        found.append("least-cost: not every GPU class has a price")
    return found


def _value(plan: Plan, cluster: Cluster, used: Used) -> float:
    match plan.solve.objective:
        case "max-min":
            return _least_weighted_rps(plan)
        case "goodput":
            return math.fsum(model.throughput_rps for model in plan.models)
        case "least-cost":
            return price_per_hour(used, cluster) or 0.0
        case "fewest-gpus":
            return sum(used.values())


def _bound_faults(plan: Plan, value: float) -> Iterator[str]:
    """Yield if the bound is on the wrong side: the plan would be better than any can be."""
    bound, objective = plan.solve.bound, plan.solve.objective
    if objective in {"max-min", "goodput"}:
        if not bound >= value * (1 - TOLERANCE):
            yield f"bound: {bound:.6g} is below the value {value:.6g}, {objective} is a maximum"
    elif not bound <= value * (1 + TOLERANCE):
        yield f"bound: {bound:.6g} is above the value {value:.6g}, {objective} is a minimum"


def _gap_faults(plan: Plan, relative_gap: float) -> Iterator[str]:
    solve = plan.solve
    largest = max(solve.value, solve.bound)
    gap = abs(solve.value - solve.bound) / largest if largest else 0.0
    if not abs(gap - solve.gap) <= TOLERANCE:
        yield f"gap: is {solve.gap}, value and bound give {gap:.6f}"
    if solve.status not in {"optimal", "feasible"}:
        yield f"status: is {solve.status}, expected optimal or feasible"
    elif solve.status == "optimal" and not gap <= relative_gap + TOLERANCE:
        yield f"status: is optimal with a gap of {gap:.6f}, asked {relative_gap:g}"

"""The same question about a changed fleet: one GPU more, other SLOs, other rates, less time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.domain.cluster import Cluster, ServedModel
from penstock.domain.errors import Infeasible, InvalidPlan, PlanningFailed
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from planner.digests import input_digests
from planner.inputs import Profiles
from planner.planning import make_plan
from planner.solve import SolverName


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What became of planning.

    Attributes:
        plan: None if there is none, or none was found in time.
        infeasible: proven that there is none.
        why: there is no plan; empty if there is.
    """

    plan: Plan | None
    infeasible: bool = False
    why: str = ""


def try_plan(
    cluster: Cluster,
    profiles: Profiles,
    time_limit_s: float,
    *,
    solver: SolverName = "highs",
    partition: bool = True,
) -> Planned:
    """Return the best plan found in that time; that there is none is an answer, too."""
    timed = with_options(cluster, {"time_limit_s": time_limit_s})
    try:
        return Planned(plan=make_plan(timed, profiles, solver=solver, partition=partition))
    except Infeasible as error:
        return Planned(plan=None, infeasible=True, why=str(error))
    except PlanningFailed as error:
        return Planned(plan=None, why=str(error))


def as_planned(cluster: Cluster, profiles: Profiles, plan: Plan, source: str) -> Cluster:
    """Return the cluster with the options that the plan shows it was made with.

    What a plan does not show (most stages, largest batch, spare GPUs) stays as the cluster has it.

    Args:
        source: how the user knows the plan; named in errors.

    Raises:
        InvalidPlan: it was made from another cluster or other profiles.
    """
    there = {each.name: each.sha256 for each in input_digests(cluster, profiles)}
    for each in plan.inputs:
        if there.get(each.name) != each.sha256:
            raise InvalidPlan(source, f"inputs {each.name}", "what is given", "another")
    margins = {each.model: each.margin_us for each in plan.models}
    models = tuple(replace(each, margin_us=margins[each.name]) for each in cluster.models)
    mixed = any(
        len({model.pool(each).batch for each in pipeline.pools}) > 1
        for model in plan.models
        for pipeline in model.pipelines
    )
    formulation = plan.solve.formulation
    shown = {
        "mode": formulation if formulation in {"general", "compat"} else cluster.options.mode,
        "objective": plan.solve.objective,
        "packing": plan.packing,
        "rebatch": mixed or (cluster.options.rebatch and formulation != "compat"),
        "hop_overhead_us": plan.hop_overhead_us,
    }
    return with_options(replace(cluster, models=models), shown)


def with_options(cluster: Cluster, options: Mapping[str, Any]) -> Cluster:
    """Return the cluster with some of its options replaced."""
    return replace(cluster, options=replace(cluster.options, **options))


def with_one_more(cluster: Cluster, name: GpuClassName) -> Cluster:
    """Return the cluster with one more GPU of a class."""
    classes = tuple(
        replace(each, count=each.count + 1) if each.name == name else each
        for each in cluster.gpu_classes
    )
    return replace(cluster, gpu_classes=classes)


def with_slos(cluster: Cluster, scale: float, only: ModelName | None = None) -> Cluster:
    """Return the cluster with all SLOs, or one model's, multiplied.

    A margin in milliseconds grows with its SLO, as one that is a fraction does.
    """
    models = tuple(
        _scaled(each, scale) if only in {None, each.name} else each for each in cluster.models
    )
    return replace(cluster, models=models)


def with_rates(cluster: Cluster, level_rps: float | None) -> Cluster:
    """Return the cluster with every model asking for its weight times a level; None: for none."""
    models = tuple(
        replace(each, rate_rps=None if level_rps is None else each.weight * level_rps)
        for each in cluster.models
    )
    return replace(cluster, models=models)


def _scaled(model: ServedModel, scale: float) -> ServedModel:
    margin_us = None if model.margin_us is None else round(model.margin_us * scale)
    return replace(model, slo_us=max(1, round(model.slo_us * scale)), margin_us=margin_us)

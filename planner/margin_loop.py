"""Planner and simulator in a loop: `penstock plan --margin auto`.

Plans by the cluster's own options but for the margins, and simulates with the very dispatcher that
serves. Arrivals of the search and of any later study should have different seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from penstock.domain.cluster import Cluster
from penstock.domain.errors import InvalidSettings, InvariantViolation
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from planner.inputs import Profiles, margin_us
from planner.margins import Chosen, Margins, MarginSearch, Rates, Setting, Try
from planner.planning import make_plan
from planner.solve import SolverName
from planner.verify import find_faults
from simulator.sustain import Trials

MOST_TRIES = 40
MOST_LOAD = 1.15  # a plan of whole GPUs may sustain so much more than it promises


def plan_with_margins(
    cluster: Cluster,
    profiles: Profiles,
    trials: Trials,
    *,
    blocks_digests: Mapping[ModelName, str],
    solver: SolverName = "highs",
    seconds: float,
    as_simulated: Callable[[Plan], Plan] = lambda plan: plan,
    on_try: Callable[[Try], None] = lambda _: None,
) -> Chosen:
    """Return the plan that sustains most, with the margins found for each model.

    Args:
        cluster: its objective is max-min; its margins are of no account.
        profiles: one for every model and GPU class.
        trials: arrivals, policy and target.
        blocks_digests: SHA-256 of ``blocks.json`` by model.
        solver: ``highs`` or ``gscip``.
        seconds: no further try begins after so long.
        as_simulated: what of a plan is simulated.
        on_try: told of each try.

    Raises:
        InvalidSettings: another objective.
        PlanningFailed: no margin that was tried has a plan that meets the target.
    """
    if cluster.options.objective != "max-min":
        found = cluster.options.objective
        raise InvalidSettings("--margin auto", "", "the objective max-min", found)
    deadline = time.perf_counter() + seconds

    def plan(setting: Setting) -> Plan:
        fleet = with_setting(cluster, setting)
        found = make_plan(fleet, profiles, blocks_digests=blocks_digests, solver=solver)
        return _with_weights_of(cluster, found)

    def sustained(found: Plan, least: float) -> Rates | None:
        return _sustained(trials, as_simulated(found), least)

    search = MarginSearch(plan, sustained, cluster.options.batch_build_factor, on_try)
    names = [model.name for model in cluster.models]
    chosen = search.run(names, MOST_TRIES, lambda: time.perf_counter() < deadline)
    faults = tuple(find_faults(chosen.plan, as_found(cluster, chosen), profiles))
    if faults:
        raise InvariantViolation("the margin loop made a faulty plan: " + "; ".join(faults))
    return chosen


def with_setting(cluster: Cluster, setting: Setting) -> Cluster:
    """Return the cluster as a setting asks to plan for it.

    A model that is expected to sustain less of what is planned weighs more; none weighs more than
    it did, so that the plan's bound holds for the weights as they were.
    """
    least = min(setting.sustained.values())
    fleet = with_margins(cluster, setting.margins)
    models = tuple(
        replace(model, weight=model.weight * least / setting.sustained[model.name])
        for model in fleet.models
    )
    options = replace(fleet.options, batch_build_factor=setting.batch_build_factor)
    return replace(fleet, models=models, options=options)


def _with_weights_of(cluster: Cluster, plan: Plan) -> Plan:
    """Return the plan with each model's own weight, and the objective that this makes."""
    weights = {model.name: model.weight for model in cluster.models}
    models = tuple(replace(each, weight=weights[each.model]) for each in plan.models)
    value = min(each.throughput_rps / each.weight for each in models)
    return replace(plan, models=models, solve=replace(plan.solve, objective_rps=value, value=value))


def with_margins(cluster: Cluster, margins: Margins) -> Cluster:
    """Return the cluster with a margin of its own for each model."""
    models = tuple(
        replace(model, margin_us=margin_us(model.slo_us, margins[model.name]))
        for model in cluster.models
    )
    return replace(cluster, models=models)


def as_found(cluster: Cluster, chosen: Chosen) -> Cluster:
    """Return the cluster with the margins and the batch building that a plan was found with."""
    models = tuple(
        replace(model, margin_us=chosen.plan.model(model.name).margin_us)
        for model in cluster.models
    )
    factor = chosen.setting.batch_build_factor
    options = replace(cluster.options, batch_build_factor=factor)
    return replace(cluster, models=models, options=options)


def _sustained(trials: Trials, plan: Plan, least: float) -> Rates | None:
    """Return what each model sustains; None if one sustains no more per weight than `least`."""
    if least > 0:
        for model in plan.models:
            load = least * model.weight / model.throughput_rps
            if load > MOST_LOAD:
                return None
            trial = trials.tried(plan, model.model, model.throughput_rps, load)
            if trial.attainment < trials.target:
                return None
    rates: dict[ModelName, float] = {}
    for model in plan.models:
        best = trials.greatest(plan, model.model, model.throughput_rps, MOST_LOAD)
        rates[model.model] = 0.0 if best is None else best.load * model.throughput_rps
    return rates

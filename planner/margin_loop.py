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
from planner.margins import Chosen, Margins, MarginSearch, Rates, Try
from planner.planning import make_plan
from planner.solve import SolverName
from planner.verify import find_faults
from simulator.sustain import Trials

MOST_TRIES = 12


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

    def plan(margins: Margins) -> Plan:
        fleet = with_margins(cluster, margins)
        return make_plan(fleet, profiles, blocks_digests=blocks_digests, solver=solver)

    def sustained(found: Plan) -> Rates:
        simulated = as_simulated(found)
        return {each.model: _sustained(trials, simulated, each.model) for each in found.models}

    search = MarginSearch(plan, sustained, cluster.options.batch_build_factor, on_try)
    names = [model.name for model in cluster.models]
    chosen = search.run(names, MOST_TRIES, lambda: time.perf_counter() < deadline)
    faults = tuple(find_faults(chosen.plan, with_margins_of(cluster, chosen.plan), profiles))
    if faults:
        raise InvariantViolation("the margin loop made a faulty plan: " + "; ".join(faults))
    return chosen


def with_margins(cluster: Cluster, margins: Margins) -> Cluster:
    """Return the cluster with a margin of its own for each model."""
    models = tuple(
        replace(model, margin_us=margin_us(model.slo_us, margins[model.name]))
        for model in cluster.models
    )
    return replace(cluster, models=models)


def with_margins_of(cluster: Cluster, plan: Plan) -> Cluster:
    """Return the cluster with the margins that a plan leaves each model."""
    models = tuple(
        replace(model, margin_us=plan.model(model.name).margin_us) for model in cluster.models
    )
    return replace(cluster, models=models)


def _sustained(trials: Trials, plan: Plan, model: ModelName) -> float:
    planned_rps = plan.model(model).throughput_rps
    trial = trials.greatest(plan, model, planned_rps)
    return 0.0 if trial is None else trial.load * planned_rps

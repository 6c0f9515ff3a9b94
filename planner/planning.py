"""Planning as one call: cluster and profiles in, verified plan out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from penstock.domain.cluster import Cluster, PlannerOptions
from penstock.domain.errors import InvalidProfile, InvariantViolation
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan, SolveReport
from planner.baselines import no_partition
from planner.digests import input_digests
from planner.extract import extract_plan
from planner.inputs import Profiles, gather_inputs
from planner.replan import running_stages
from planner.search import find_solution
from planner.solution import Solution
from planner.solve import SolverName, SolverSettings
from planner.sought import unit_of
from planner.verify import find_faults

_NO_DIGESTS: Mapping[ModelName, str] = MappingProxyType({})


def make_plan(
    cluster: Cluster,
    profiles: Profiles,
    *,
    partition: bool = True,
    blocks_digests: Mapping[ModelName, str] = _NO_DIGESTS,
    solver: SolverName = "highs",
    running: Plan | None = None,
) -> Plan:
    """Return the best plan for the objective in the cluster's options, verified.

    Args:
        cluster: the fleet, the models and the options.
        profiles: one for every model and GPU class.
        partition: False keeps every model whole, on whole GPUs: the baseline.
        blocks_digests: SHA-256 of ``blocks.json`` by model; the profiles' own if left out.
        solver: ``highs`` or ``gscip``.
        running: the plan in force: of equally good plans one that changes few of its instances.

    Raises:
        InvalidInput: cluster or profiles contradict themselves or each other.
        Infeasible: no plan serves every model; says why.
        PlanningFailed: the time was up before any plan was found.
    """
    started = time.perf_counter()
    inputs = gather_inputs(cluster, profiles)
    _check_blocks(profiles, blocks_digests)
    options = cluster.options
    settings = solver_settings(options, solver, started + options.time_limit_s)
    solution = find_solution(
        inputs if partition else no_partition(inputs),
        settings,
        None if running is None else running_stages(running),
    )
    report = solve_report(
        solution,
        settings,
        options,
        formulation=options.mode if partition else "no-partition",
        seconds=time.perf_counter() - started,
    )
    plan = extract_plan(
        inputs,
        solution,
        report,
        blocks_digests=blocks_digests,
        digests=input_digests(cluster, profiles),
    )
    faults = tuple(find_faults(plan, cluster, profiles))
    if faults:
        raise InvariantViolation("the planner made a faulty plan: " + "; ".join(faults))
    return plan


def solver_settings(options: PlannerOptions, solver: SolverName, deadline: float) -> SolverSettings:
    """Return how to solve by a cluster's options until a deadline of `time.perf_counter`."""
    return SolverSettings(
        solver=solver,
        deadline=deadline,
        relative_gap=options.relative_gap,
        seed=options.seed,
    )


def solve_report(
    solution: Solution,
    settings: SolverSettings,
    options: PlannerOptions,
    *,
    formulation: str,
    seconds: float,
) -> SolveReport:
    """Return how a solution was found.

    Args:
        solution: what was found.
        settings: of the solver that found it.
        options: what was sought.
        formulation: what kind of plan, as `SolveReport` names it.
        seconds: that planning took.
    """
    return SolveReport(
        solver=settings.solver,
        formulation=formulation,
        objective=options.objective,
        status=solution.status,
        objective_rps=solution.objective_rps,
        value=solution.value,
        bound=solution.bound,
        unit=unit_of(options),
        gap=solution.gap,
        seconds=round(seconds, 3),
        phases=solution.phases,
        seed=settings.seed,
    )


def _check_blocks(profiles: Profiles, blocks_digests: Mapping[ModelName, str]) -> None:
    """Refuse profiles that were measured on other blocks than the workers will run."""
    for (model, gpu_class), profile in profiles.items():
        expected = blocks_digests.get(model, profile.blocks_digest)
        if profile.blocks_digest and profile.blocks_digest != expected:
            source = f"profile of {model} on {gpu_class}"
            raise InvalidProfile(source, "blocks_digest", expected, profile.blocks_digest)

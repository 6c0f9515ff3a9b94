"""The planner against brute force, and laws that hold for every fleet."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.domain.cluster import GpuClass, Objective, ServedModel
from penstock.domain.errors import Infeasible
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from planner.baselines import no_partition
from planner.inputs import PlannerInputs, gather_inputs
from planner.planning import make_plan
from planner.search import best_solution
from planner.solution import Solution
from planner.solve import SolverName, SolverSettings
from planner.verify import find_faults
from tests.support.bruteforce import best_value
from tests.support.tiny import COMPAT, FORMS, GENERAL, PER_STAGE, REBATCH, Case, Form, draw_case

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = settings().max_examples  # 100 in the usual profile: 1000 cases against brute force
CLOSE = 1e-6  # relative: what solvers may be wrong by
MAXIMA: tuple[Objective, ...] = ("max-min", "goodput")
OBJECTIVES: tuple[Objective, ...] = (*MAXIMA, "least-cost", "fewest-gpus")

every_objective = pytest.mark.parametrize("objective", OBJECTIVES)
every_maximum = pytest.mark.parametrize("objective", MAXIMA)
every_form = pytest.mark.parametrize(
    "form", FORMS, ids=lambda form: "-".join(str(each) for each in form.values())
)
few = settings(max_examples=max(1, EXAMPLES // 5))


def case_of(seed: int, objective: Objective, form: Form) -> Case:
    """Return a case; for another objective or form, the same seed gives another fleet."""
    return draw_case(Random(f"{objective} {sorted(form.items())} {seed}"), objective, form)


def as_it_is(inputs: PlannerInputs) -> PlannerInputs:
    return inputs


def solution_of(
    case: Case,
    solver: SolverName = "highs",
    change: Callable[[PlannerInputs], PlannerInputs] = as_it_is,
) -> Solution | None:
    """Return the planner's best solution; None if it says that there is none."""
    inputs = change(gather_inputs(case.cluster, case.profiles))
    until = SolverSettings(
        solver=solver,
        deadline=time.perf_counter() + 60,
        relative_gap=case.cluster.options.relative_gap,
        seed=0,
    )
    try:
        return best_solution(inputs, case.rates, until)
    except Infeasible:
        return None


def value_of(case: Case) -> float:
    """Return the planner's best value of a maximum; 0 if it says that there is no plan."""
    solution = solution_of(case)
    return 0.0 if solution is None else solution.value


def at_least(value: float) -> float:
    """Return what a value has to reach that is as great as another."""
    return value * (1 - CLOSE)


def flows_of(solution: Solution) -> dict[ModelName, float]:
    total: defaultdict[ModelName, float] = defaultdict(float)
    for path, flow in solution.flows.items():
        total[path.model] += flow
    return total


def with_models(case: Case, change: Callable[[ServedModel], ServedModel]) -> Case:
    models = tuple(change(each) for each in case.cluster.models)
    return replace(case, cluster=replace(case.cluster, models=models))


def with_classes(case: Case, change: Callable[[GpuClass], GpuClass]) -> Case:
    classes = tuple(change(each) for each in case.cluster.gpu_classes)
    return replace(case, cluster=replace(case.cluster, gpu_classes=classes))


# ------------------------------------------------------------------------------------ brute force


@every_form
@every_objective
@settings(max_examples=max(1, EXAMPLES // 2))
@given(seed=SEEDS, solver=st.sampled_from(["highs", "gscip"]))
def test_the_best_plan_is_that_of_brute_force(
    objective: Objective, form: Form, seed: int, solver: SolverName
) -> None:
    case = case_of(seed, objective, form)
    expected = best_value(case.cluster, case.profiles, case.rates)
    found = solution_of(case, solver)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.value == pytest.approx(expected, rel=CLOSE)
        assert found.bound == pytest.approx(expected, rel=CLOSE)
        assert found.status == "optimal"


# ------------------------------------------------------------------------------------------ plans


def plan_of(case: Case) -> Plan | None:
    try:
        return make_plan(case.cluster, case.profiles, solver="highs")
    except Infeasible:
        return None


@every_form
@every_objective
@settings(max_examples=max(1, EXAMPLES // 10))
@given(seed=SEEDS)
def test_every_plan_passes_the_verifier(objective: Objective, form: Form, seed: int) -> None:
    case = case_of(seed, objective, form)
    plan = plan_of(case)
    if plan is not None:
        assert list(find_faults(plan, case.cluster, case.profiles)) == []
        again = plan_of(case)
        assert again is not None
        timeless = replace(plan.solve, seconds=again.solve.seconds, phases=again.solve.phases)
        assert replace(plan, solve=timeless) == again


# ------------------------------------------------------------------------------------------- laws


@every_maximum
@few
@given(seed=SEEDS, number=st.integers(0, 2))
def test_more_hardware_never_lowers_the_value(objective: Objective, seed: int, number: int) -> None:
    case = case_of(seed, objective, GENERAL)
    classes = case.cluster.gpu_classes
    grown = classes[number % len(classes)].name
    more = with_classes(
        case, lambda each: replace(each, count=each.count + 1) if each.name == grown else each
    )
    assert value_of(more) >= at_least(value_of(case))


@every_maximum
@few
@given(seed=SEEDS)
def test_each_freedom_is_worth_something_or_nothing(objective: Objective, seed: int) -> None:
    case = case_of(seed, objective, GENERAL)
    whole_gpu = value_of(case)
    per_stage = value_of(case.changed(**PER_STAGE))
    compat = value_of(case.changed(**COMPAT))
    unpartitioned = solution_of(case.changed(**COMPAT), change=no_partition)
    assert value_of(case.changed(**REBATCH)) >= at_least(whole_gpu)
    assert whole_gpu >= at_least(per_stage)
    assert per_stage >= at_least(compat)  # shares down to 1/3 can be laid out as they are summed
    assert compat >= at_least(unpartitioned.value if unpartitioned else 0.0)


RELAXED: dict[str, Callable[[Case], Case]] = {
    "memory": lambda case: with_classes(case, lambda each: replace(each, memory_bytes=1 << 50)),
    "network": lambda case: with_classes(
        case, lambda each: replace(each, network_gbps=2 * each.network_gbps)
    ),
    "one GPU per server": lambda case: with_classes(
        case, lambda each: replace(each, gpus_per_server=1)
    ),
    "smaller shares": lambda case: with_classes(
        case, lambda each: replace(each, max_share_denominator=each.max_share_denominator + 1)
    ),
    "SLO": lambda case: with_models(case, lambda each: replace(each, slo_us=2 * each.slo_us)),
    "own bounds": lambda case: with_models(
        case,
        lambda each: replace(
            each,
            gpu_classes=(),
            forbidden_gpu_classes=(),
            max_stages=None,
            max_latency_us=None,
            rate_rps=each.rate_rps and each.rate_rps / 2,
        ),
    ),
    "options": lambda case: case.changed(
        max_stages=3,
        max_batch=8,
        workspace_bytes=0,
        hop_overhead_us=0,
        batch_build_factor=0.0,
        spare_gpus=0,
        max_price_per_hour=None,
    ),
}


@pytest.mark.parametrize("bound", RELAXED)
@settings(max_examples=max(1, EXAMPLES // 10))
@given(seed=SEEDS, objective=st.sampled_from(MAXIMA), form=st.sampled_from(FORMS))
def test_no_bound_helps(bound: str, seed: int, objective: Objective, form: Form) -> None:
    case = case_of(seed, objective, form)
    assert value_of(RELAXED[bound](case)) >= at_least(value_of(case))


@few
@given(seed=SEEDS, form=st.sampled_from(FORMS))
def test_twice_the_weights_are_half_the_value(seed: int, form: Form) -> None:
    case = case_of(seed, "max-min", form)
    doubled = with_models(case, lambda each: replace(each, weight=2 * each.weight))
    assert value_of(doubled) == pytest.approx(value_of(case) / 2, rel=CLOSE)


def slowed(case: Case) -> Case:
    """Return the case where everything takes twice as long."""
    profiles = {
        key: replace(
            each,
            rows=tuple(replace(row, latency_mean_us=2 * row.latency_mean_us) for row in each.rows),
            cut_bytes=tuple(2 * size for size in each.cut_bytes),
        )
        for key, each in case.profiles.items()
    }
    slower = with_models(
        case,
        lambda each: replace(
            each,
            slo_us=2 * each.slo_us,
            rate_rps=each.rate_rps and each.rate_rps / 2,
            margin_us=each.margin_us and 2 * each.margin_us,
            max_latency_us=each.max_latency_us and 2 * each.max_latency_us,
        ),
    ).changed(hop_overhead_us=2 * case.cluster.options.hop_overhead_us)
    return replace(slower, profiles=profiles)


@every_maximum
@few
@given(seed=SEEDS, form=st.sampled_from(FORMS))
def test_at_half_the_speed_there_is_half_the_flow(
    objective: Objective, seed: int, form: Form
) -> None:
    case = case_of(seed, objective, form)
    # Whole microseconds of transfer and of margin, so that nothing is rounded on the way.
    even = {
        key: replace(each, cut_bytes=tuple(size // 1250 * 1250 for size in each.cut_bytes))
        for key, each in case.profiles.items()
    }
    case = replace(case, profiles=even).changed(batch_build_factor=0.0, slo_margin=0.0)
    assert value_of(slowed(case)) == pytest.approx(value_of(case) / 2, rel=CLOSE)


@few
@given(seed=SEEDS, form=st.sampled_from(FORMS))
def test_each_objective_is_best_at_its_own(seed: int, form: Form) -> None:
    case = case_of(seed, "goodput", form)
    most, fair = solution_of(case), solution_of(case.changed(objective="max-min"))
    assert (most is None) == (fair is None)
    assume(most is not None)
    assert most is not None
    assert fair is not None
    assert most.value >= at_least(sum(fair.flows.values()))
    assert fair.value >= at_least(most.objective_rps)


@few
@given(seed=SEEDS, form=st.sampled_from(FORMS))
def test_what_fewest_gpus_can_do_fewer_cannot(seed: int, form: Form) -> None:
    case = with_classes(
        case_of(seed, "max-min", form), lambda each: replace(each, price_per_hour=1.0)
    ).changed(max_price_per_hour=None)
    free = solution_of(case)
    assume(free is not None)
    assert free is not None
    flows = flows_of(free)
    asking = with_models(case, lambda each: replace(each, rate_rps=flows[each.name] * 0.499))
    fewest = solution_of(asking.changed(objective="fewest-gpus"))
    cheapest = solution_of(asking.changed(objective="least-cost"))
    assert fewest is not None
    assert cheapest is not None
    assert cheapest.value == pytest.approx(fewest.value)  # at one a GPU
    capped: dict[str, Any] = {"max_price_per_hour": fewest.value}
    assert solution_of(asking.changed(**capped)) is not None
    capped["max_price_per_hour"] -= 0.5
    assert solution_of(asking.changed(**capped)) is None

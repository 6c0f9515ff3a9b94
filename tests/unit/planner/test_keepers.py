from __future__ import annotations

import functools
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from bench.fleets import A100, L4, T4, Shape, make_fleet
from penstock.domain.cluster import Objective, PlannerOptions
from penstock.domain.ids import GpuClassName
from planner.assemble import Assembler
from planner.bundles import Bundle, Terms
from planner.choice import Choice
from planner.enumeration import enumerate_paths
from planner.inputs import PlannerInputs, gather_inputs
from planner.keepers import Keepers
from planner.optimise import optimise
from planner.paths import StageKey
from planner.relaxation import relax
from planner.replan import Running, kept_instances
from planner.solution import Instances, Solution, gpus_used, with_flows
from planner.solve import SolverSettings
from planner.sought import Task, task_of

SHAPE = Shape(kinds=(A100, L4, T4), reference=L4, batches=(1, 2, 4), models=3, blocks=4)

GAP = 0.08

pytestmark = pytest.mark.xdist_group("keepers")  # they share what `Changes` has solved


def fleet(objective: Objective) -> PlannerInputs:
    options = PlannerOptions(max_stages=2, max_batch=4, objective=objective)
    inputs = gather_inputs(*make_fleet(40, SHAPE, options, seed=3))
    return _asking(inputs, 60.0)


def _asking(inputs: PlannerInputs, rate_rps: float) -> PlannerInputs:
    return replace(
        inputs,
        models=tuple(
            replace(model, served=replace(model.served, rate_rps=rate_rps))
            for model in inputs.models
        ),
    )


def changed(inputs: PlannerInputs, factor: float) -> PlannerInputs:
    """Return the inputs with the first model's weight and rate times a factor."""
    first, *others = inputs.models
    served = first.served
    rate_rps = None if served.rate_rps is None else served.rate_rps * factor
    served = replace(served, weight=served.weight * factor, rate_rps=rate_rps)
    return replace(inputs, models=(replace(first, served=served), *others))


def settings() -> SolverSettings:
    return SolverSettings(
        solver="highs", deadline=time.perf_counter() + 60.0, relative_gap=GAP, seed=0
    )


def solved(inputs: PlannerInputs, running: Running | None = None) -> Solution:
    rates = {model.served.name: math.inf for model in inputs.models}
    found = optimise(task_of(inputs), enumerate_paths(inputs, rates), settings(), running)
    if found is None:
        pytest.fail("there is a plan")
    return found


def running_of(instances: Instances) -> dict[StageKey, int]:
    running: dict[StageKey, int] = {}
    for pool, count in instances.items():
        key = (pool.model, pool.first_block, pool.end_block, pool.gpu_class.name, pool.m)
        running[key] = running.get(key, 0) + count
    return running


def keepers_of(inputs: PlannerInputs, running: Running) -> tuple[Task, Keepers]:
    rates = {model.served.name: math.inf for model in inputs.models}
    task, tables = task_of(inputs), enumerate_paths(inputs, rates)
    relaxation = relax(task, tables)
    if relaxation is None:
        pytest.fail("every model has paths")
    return task, Keepers(Assembler(task, tables, relaxation), running, settings())


def assert_within_limits(task: Task, solution: Solution) -> None:
    used = gpus_used(task, solution.instances)
    assert all(used[name] <= count for name, count in task.limits.count.items())


def trades(inputs: PlannerInputs, best: Solution, running: Running) -> list[Solution]:
    task, keepers = keepers_of(inputs, running)
    value = best.value * (1 - GAP if task.maximise else 1 + GAP)
    found = [with_flows(*each) for each in keepers.trades(value, {})]
    for each in found:
        assert_within_limits(task, each)
        reached = each.value >= value * (1 - 1e-6)
        assert reached if task.maximise else each.value <= value * (1 + 1e-6)
    return found


class Changes:
    """What runs, and what would afresh after a change: each solved once for all tests."""

    def __init__(self) -> None:
        self.best = functools.cache(lambda objective: solved(fleet(objective)))
        self.afresh = functools.cache(
            lambda objective, factor: solved(changed(fleet(objective), factor))
        )

    def of(self, objective: Objective, factor: float) -> tuple[PlannerInputs, Running, Solution]:
        """Return the changed inputs, what runs, and the best solution that knows nothing of it."""
        running = running_of(self.best(objective).instances)
        return changed(fleet(objective), factor), running, self.afresh(objective, factor)


@pytest.fixture(scope="module")
def changes() -> Changes:
    return Changes()


@pytest.mark.parametrize("objective", ["max-min", "fewest-gpus"])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_trades_are_as_good_and_keep_most_of_what_runs(
    changes: Changes, objective: Objective, factor: float
) -> None:
    after, running, afresh = changes.of(objective, factor)
    found = trades(after, afresh, running)
    assert found
    most = max(kept_instances(each.instances, running) for each in found)
    assert most >= kept_instances(afresh.instances, running)
    assert most >= 0.8 * sum(running.values())


@pytest.mark.parametrize(("worth", "taken"), [(0.1, 0), (0.5, 1)])
def test_a_choice_that_is_charged_for_losses_weighs_them_against_gpus(
    worth: float, taken: int
) -> None:
    terms = Terms(
        names=(GpuClassName(L4.name),),
        count=np.array([10.0]),
        price=np.array([1.0]),
        per_gpu=(1,),
    )
    bundles = [Bundle(flows=((0, 1.0),), units=(2,)), Bundle(flows=((1, 1.0),), units=(3,))]
    choice = Choice(task_of(fleet("fewest-gpus")), terms, [bundles])
    choice.charge([[0, 4]], worth)
    assert choice.whole(settings()) == [bundles[taken]]


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_what_stays_serves_the_rates_about_as_cheaply_and_keeps_most_of_what_runs(
    changes: Changes, factor: float
) -> None:
    after, running, afresh = changes.of("fewest-gpus", factor)
    task, keepers = keepers_of(after, running)
    found = [with_flows(*each) for each in keepers.stays()]
    for each in found:
        assert_within_limits(task, each)
        for model in task.models:
            carried = sum(flow for path, flow in each.flows.items() if path.model == model.name)
            assert carried >= (model.rate_rps or 0.0) * (1 - 1e-6)
    best = min(found, key=lambda each: each.value)
    assert best.value <= afresh.value * (1 + GAP)
    assert max(kept_instances(each.instances, running) for each in found) >= 0.8 * sum(
        running.values()
    )


def test_what_stays_is_the_same_again(changes: Changes) -> None:
    after, running, _ = changes.of("fewest-gpus", 0.8)
    first, again = (
        [with_flows(*each) for each in keepers_of(after, running)[1].stays()] for _ in range(2)
    )
    assert [each.value for each in first] == [each.value for each in again]
    assert [kept_instances(each.instances, running) for each in first] == [
        kept_instances(each.instances, running) for each in again
    ]


@pytest.mark.parametrize("objective", ["max-min", "fewest-gpus"])
def test_beside_a_running_plan_more_instances_are_kept_at_the_same_value(
    changes: Changes, objective: Objective
) -> None:
    after, running, afresh = changes.of(objective, 1.2)
    beside = solved(after, running)
    assert kept_instances(beside.instances, running) >= kept_instances(afresh.instances, running)
    better, worse = (beside, afresh) if objective == "max-min" else (afresh, beside)
    assert better.value >= worse.value * (1 - GAP) ** 2


def test_what_runs_elsewhere_is_no_hindrance(changes: Changes) -> None:
    inputs = fleet("max-min")
    name = inputs.models[0].served.name
    strange: Running = {(name, 1, 2, GpuClassName(A100.name), 7): 3}
    best = changes.best("max-min")
    assert all(
        kept_instances(each.instances, strange) == 0 for each in trades(inputs, best, strange)
    )

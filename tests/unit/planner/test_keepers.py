from __future__ import annotations

import functools
import math
import time
from dataclasses import replace

import pytest

from bench.fleets import A100, L4, T4, Shape, make_fleet
from penstock.domain.cluster import Objective, PlannerOptions
from penstock.domain.ids import GpuClassName
from planner.assemble import Assembler
from planner.enumeration import enumerate_paths
from planner.inputs import PlannerInputs, gather_inputs
from planner.keepers import Keepers
from planner.optimise import optimise
from planner.paths import StageKey
from planner.relaxation import relax
from planner.replan import Running, kept_instances
from planner.solution import Instances, Solution, gpus_used, with_flows
from planner.solve import SolverSettings
from planner.sought import task_of

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


def trades(inputs: PlannerInputs, best: Solution, running: Running) -> list[Solution]:
    rates = {model.served.name: math.inf for model in inputs.models}
    task, tables = task_of(inputs), enumerate_paths(inputs, rates)
    relaxation = relax(task, tables)
    if relaxation is None:
        pytest.fail("every model has paths")
    keepers = Keepers(Assembler(task, tables, relaxation), running, settings())
    value = best.value * (1 - GAP if task.maximise else 1 + GAP)
    found = [with_flows(*each) for each in keepers.trades(value, {})]
    for each in found:
        used = gpus_used(task, each.instances)
        assert all(used[name] <= count for name, count in task.limits.count.items())
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

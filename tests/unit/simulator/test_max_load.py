from __future__ import annotations

import pytest

from penstock.arrivals import Constant
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.plan import Plan
from simulator.max_load import MOST, MaxLoad, max_loads
from simulator.metrics import busy_by_class
from simulator.record import Computations
from simulator.simulate import Scenario, planned_load, simulate_plan
from simulator.sustain import Trials
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000


def a_fleet(throughput_rps: float) -> Plan:
    """One instance that takes 10 ms for a sample: 100 samples/s."""
    pools = [a_pool(latencies_us=(10_000,))]
    return a_plan(a_model_plan(pools, slo_us=20_000, throughput_rps=throughput_rps))


def evenly(target: float = 1.0) -> Trials:
    return Trials(law=Constant(), span_us=4 * SECOND_US, target=target, scenario=Scenario())


@pytest.mark.parametrize(("throughput_rps", "load"), [(100.0, 1.0), (80.0, 1.25), (200.0, 0.5)])
def test_what_comes_evenly_is_sustained_up_to_capacity(throughput_rps: float, load: float) -> None:
    (found,) = max_loads(a_fleet(throughput_rps), evenly(), 2)
    assert found.loads[0] == found.loads[1]
    assert found.mean == pytest.approx(load, abs=1 / 64)
    assert found.half_width == 0


def test_no_load_above_the_greatest_of_interest_is_tried() -> None:
    (found,) = max_loads(a_fleet(1.0), evenly(), 1)
    assert found.mean == pytest.approx(MOST, abs=1 / 64)
    assert found.half_width is None
    trial = evenly().greatest(a_fleet(1.0), MODEL, 1.0)
    assert trial is not None
    assert trial.load == 1.0


def test_what_is_too_slow_sustains_nothing() -> None:
    pools = [a_pool(latencies_us=(30_000,))]
    plan = a_plan(a_model_plan(pools, slo_us=20_000, throughput_rps=30.0))
    assert evenly().greatest(plan, MODEL, 30.0) is None
    assert max_loads(plan, evenly(), 1)[0].loads == (0.0,)


def test_loads_are_tried_in_the_order_given() -> None:
    trial = evenly().sustained(a_fleet(100.0), MODEL, 100.0, (1.5, 1.2, 0.9, 0.5))
    assert trial is not None
    assert trial.load == 0.9
    assert trial.busy_us[GpuClassName("fast")] == pytest.approx(0.9 * 4 * SECOND_US, rel=0.01)
    assert evenly().sustained(a_fleet(100.0), MODEL, 100.0, (1.5, 1.2)) is None


def test_a_hopeless_load_is_given_up_early() -> None:
    trials = evenly(0.9)
    hopeless = trials.tried(a_fleet(100.0), MODEL, 100.0, 3.0)
    assert hopeless.attainment < 0.9
    # 1200 requests came, of which 120 may miss; two of three do, so a sixth of the time tells.
    assert hopeless.busy_us[GpuClassName("fast")] < SECOND_US
    good = trials.tried(a_fleet(100.0), MODEL, 100.0, 1.0)
    assert good.attainment == 1.0


@pytest.mark.parametrize("load", [0.99, 1.01, 1.05, 1.2])
def test_giving_up_early_changes_no_verdict(load: float) -> None:
    fleet, trials = a_fleet(100.0), evenly(0.95)
    offered = planned_load(fleet, load, trials.span_us, Constant(), 0)
    whole = simulate_plan(fleet, offered, trials.span_us, Scenario()).summary().attainment
    early = trials.tried(fleet, MODEL, 100.0, load).attainment
    assert (early >= 0.95) == (whole >= 0.95)


def test_shares_count_as_the_part_of_a_gpu_they_are() -> None:
    assert busy_by_class(a_fleet(100.0), Computations(())) == {}


def test_the_interval_is_student_s() -> None:
    found = MaxLoad(model=ModelName("m"), planned_rps=1.0, loads=(0.9, 1.0, 1.1))
    assert found.half_width == pytest.approx(4.303 * 0.1 / 3**0.5)


def test_misses_while_warming_up_do_not_count() -> None:
    scenario = Scenario(warmup_us=2 * SECOND_US)
    trials = Trials(law=Constant(), span_us=4 * SECOND_US, target=0.9, scenario=scenario)
    assert trials.tried(a_fleet(100.0), MODEL, 100.0, 3.0).attainment < 0.9

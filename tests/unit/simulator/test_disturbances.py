"""Disturbances as a person writes them, and what is drawn for them."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, stdev

import pytest

from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.ids import PoolId
from simulator.disturbances import (
    Outage,
    PoolFactor,
    ProfileError,
    Straggler,
    outage_of,
    profile_error_of,
    straggler_of,
)
from simulator.fleet import gpus_of, planned_downtimes, random_downtimes
from simulator.noise import profile_factor
from simulator.simulate import Scenario, Simulation, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

SECOND_US = 1_000_000
ONE = a_plan(a_model_plan([a_pool(latencies_us=(10_000,))]))
JITTERY = Scenario(jitter_sigma=0.2, seed=3)
ROW = [Arrival(arrival_us=each * 50_000, model=MODEL) for each in range(400)]


def run(scenario: Scenario) -> Simulation:
    return simulate_plan(ONE, ROW, 20 * SECOND_US, scenario)


@pytest.mark.parametrize(
    ("text", "outage"),
    [
        ("fast-0@10s+5s", Outage("fast-0", 10_000_000, 5_000_000)),
        ("fast-0:1@1.5ms+2us", Outage("fast-0:1", 1_500, 2)),
        ("m.0@b/3@0s", Outage("m.0@b/3", 0, None)),
    ],
)
def test_an_outage_is_read(text: str, outage: Outage) -> None:
    assert outage_of(text) == outage


@pytest.mark.parametrize(
    "text", ["", "x", "x@", "@1s", "x@1", "x@1s+", "x@1s+0s", "x@-1s", "x@1s+5s+5s", "x@9e9s"]
)
def test_what_is_no_outage_is_one_clear_error(text: str) -> None:
    with pytest.raises(InvalidSettings, match=r"^fail: expected TARGET@START or TARGET@START"):
        outage_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1", "straggler: expected PROBABILITY:FACTOR, such as 0.01:4, found '0.1'"),
        ("a:4", "straggler: expected PROBABILITY:FACTOR, such as 0.01:4, found 'a:4'"),
        ("1.5:4", "straggler: probability: expected a number from 0 to 1, found 1.5"),
        ("0.1:0.5", "straggler: factor: expected a number from 1 to 1000, found 0.5"),
        ("0.1:nan", "straggler: factor: expected a number from 1 to 1000, found nan"),
    ],
)
def test_what_is_no_straggler_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        straggler_of(text)
    assert str(raised.value) == message


def test_profile_errors_are_read_together() -> None:
    assert profile_error_of(["0.1", "all=1.2", "p=0.9"]) == ProfileError(
        sigma=0.1, factor=1.2, pools=(PoolFactor(PoolId("p"), 0.9),)
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["much"], "profile-error: expected SIGMA, all=FACTOR or POOL=FACTOR"),
        (["=2"], "profile-error: expected SIGMA, all=FACTOR or POOL=FACTOR"),
        (["0.1", "0.2"], "profile-error: sigma: expected one value, found two"),
        (["p=1", "p=1"], "profile-error: p: expected one value, found two"),
        (["-1"], "profile-error: sigma: expected a number from 0 to 5"),
        (["p=0"], "profile-error: p: expected a number from 0.001 to 1000"),
        (["all=inf"], "profile-error: all: expected a number from 0.001 to 1000"),
    ],
)
def test_what_is_no_profile_error_is_one_clear_error(texts: list[str], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        profile_error_of(texts)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Scenario(mtbf_us=1), "mtbf: expected mttr with it"),
        (Scenario(mttr_us=1), "mttr: expected mtbf with it"),
        (Scenario(mtbf_us=0, mttr_us=1), "mtbf: expected more than no time"),
        (Scenario(wire_factor=0), "wire-factor: expected a number from"),
        (Scenario(detection_us=-1), "detection: expected"),
        (
            Scenario(fail=(Outage("gpu-7", 0),)),
            "fail: target: expected an instance such as 'p0/0', a GPU such as 'fast-0:0' or a "
            "server such as 'fast-0', found 'gpu-7'",
        ),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(scenario: Scenario, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        scenario.check(ONE)
    with pytest.raises(InvalidSettings, match=message):
        run(scenario)


def test_a_pool_that_is_not_there_is_named() -> None:
    scenario = Scenario(profile_error=profile_error_of(["p9=2"]))
    scenario.check()
    with pytest.raises(UnknownName, match="unknown pool of the plan 'p9'; known: p0"):
        scenario.check(ONE)


def test_a_straggler_takes_so_many_times_as_long() -> None:
    result = run(Scenario(straggler=Straggler(0.2, 4)))
    lengths = [each.end_us - each.start_us for each in result.intervals]
    assert set(lengths) == {10_000, 40_000}
    assert lengths.count(40_000) == result.stragglers
    assert 400 * 0.2 * 0.7 < result.stragglers < 400 * 0.2 * 1.3


def test_the_dispatcher_is_told_the_profile_and_not_the_error() -> None:
    tight = [replace(each, slo_us=12_000) for each in ROW[:1]]
    scenario = Scenario(profile_error=ProfileError(factor=1.5))
    result = simulate_plan(ONE, tight, 20 * SECOND_US, scenario)
    # Believed to be answered after 10 of 12 ms, and so not refused; answered after 15.
    assert [each.latency_us for each in result.outcomes] == [15_000]
    assert result.profile_factors == {"p0": 1.5}


def test_a_pool_that_is_named_has_its_own_factor_and_no_other() -> None:
    error = profile_error_of(["0.5", "all=3", "p0=1.1"])
    assert profile_factor(error, a_pool("p0"), 1) == 1.1
    drawn = profile_factor(error, a_pool("p1"), 1)
    plain = profile_factor(profile_error_of(["0.5"]), a_pool("p1"), 1)
    assert drawn == pytest.approx(3 * plain)
    assert plain != 1


def test_drawn_factors_have_mean_one_and_the_spread_asked_for() -> None:
    error = ProfileError(sigma=0.2)
    factors = [profile_factor(error, a_pool(f"p{each}"), 7) for each in range(4_000)]
    assert fmean(factors) == pytest.approx(1, abs=0.02)
    assert stdev(factors) == pytest.approx(0.2, abs=0.02)
    assert profile_factor(error, a_pool("p5"), 7) == factors[5]


@pytest.mark.parametrize(
    "harmless",
    [
        replace(JITTERY, straggler=Straggler(1.0, 1.0)),
        replace(JITTERY, straggler=Straggler(0.0, 9.0)),
        replace(JITTERY, mtbf_us=10**15, mttr_us=1),
        replace(JITTERY, profile_error=ProfileError()),
        replace(JITTERY, detection_us=5_000),
        replace(JITTERY, fail=(Outage("p0/0", 30 * SECOND_US, 1),)),
    ],
)
def test_turning_one_thing_on_leaves_the_draws_of_the_others(harmless: Scenario) -> None:
    assert harmless != JITTERY
    assert run(harmless).outcomes == run(JITTERY).outcomes


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(straggler=Straggler(0.1, 3), seed=1),
        Scenario(mtbf_us=SECOND_US, mttr_us=SECOND_US // 5, seed=1),
        Scenario(profile_error=ProfileError(sigma=0.2), seed=1),
        Scenario(jitter_sigma=0.1, seed=1),
    ],
)
def test_equal_seeds_give_equal_runs_and_others_do_not(scenario: Scenario) -> None:
    assert run(scenario).outcomes == run(scenario).outcomes
    assert run(scenario).outcomes != run(replace(scenario, seed=2)).outcomes


def test_random_failures_have_the_means_asked_for() -> None:
    gpus = gpus_of(a_plan(a_model_plan([a_pool(instances=50)])))
    span_us = 400 * SECOND_US
    found = random_downtimes(gpus, 3 * SECOND_US, SECOND_US, span_us, 1)
    assert all(0 < each.at_us < span_us for each in found)
    assert len(found) == pytest.approx(50 * 400 / 4, rel=0.05)
    lengths = [each.lasts_us or 0 for each in found]
    assert fmean(lengths) == pytest.approx(SECOND_US, rel=0.05)


def test_a_gpu_fails_as_it_does_whatever_is_beside_it() -> None:
    one = gpus_of(ONE)
    many = gpus_of(a_plan(a_model_plan([a_pool(instances=3)])))
    alone = random_downtimes(one, SECOND_US, SECOND_US, 50 * SECOND_US, 4)
    together = random_downtimes(many, SECOND_US, SECOND_US, 50 * SECOND_US, 4)
    assert alone == [each for each in together if each.instances == ("p0/0",)]
    firsts = {each.instances: each.at_us for each in reversed(together)}
    assert len(set(firsts.values())) == 3


def test_servers_gpus_and_instances_are_told_apart_by_name() -> None:
    plan = a_plan(a_model_plan([a_pool(instances=5)]))
    classes = tuple(replace(each, gpus_per_server=2) for each in plan.gpu_classes)
    gpus = gpus_of(replace(plan, gpu_classes=classes))
    names = ["fast-0:0", "fast-0:1", "fast-1:0", "fast-1:1", "fast-2:0"]
    assert [each.name for each in gpus] == names
    outages = [Outage("fast-1", 1), Outage("fast-1:1", 2, 3), Outage("p0/4", 4)]
    assert [each.instances for each in planned_downtimes(gpus, outages)] == [
        ("p0/2", "p0/3"),
        ("p0/3",),
        ("p0/4",),
    ]

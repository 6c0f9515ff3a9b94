"""Simulated runs with answers that can be worked out by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from fractions import Fraction

import pytest

from penstock.arrivals import Poisson
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidInput, UnknownName
from penstock.domain.ids import ModelName
from simulator.report import outcomes_csv, summary_json
from simulator.simulate import Scenario, planned_load, simulate_plan
from tests.support.builders import MODEL, a_model_plan, a_plan, a_pool

STAGES = (
    a_pool("p0", latencies_us=(10_000, 15_000)),
    a_pool("p1", position=1, blocks=(1, 2), gpu_class="slow", latencies_us=(20_000, 30_000)),
)


def arrivals(*instants_us: int, samples: int = 1) -> list[Arrival]:
    return [Arrival(arrival_us=at_us, model=MODEL, samples=samples) for at_us in instants_us]


def test_one_request_takes_the_planned_latency() -> None:
    plan = a_plan(a_model_plan(STAGES, transfer_us=500), hop_us=1_000)
    result = simulate_plan(plan, arrivals(0), 1_000_000, Scenario())
    (outcome,) = result.outcomes
    assert outcome.latency_us == 10_000 + 500 + 20_000 + 3 * 1_000
    assert [(each.start_us, each.end_us) for each in result.intervals] == [
        (1_000, 11_000),
        (12_500, 32_500),
    ]


def test_stages_overlap_between_batches() -> None:
    plan = a_plan(a_model_plan(STAGES))
    late = Scenario(batching="reservation:bind_lead=0.15")
    result = simulate_plan(plan, arrivals(0, 0, 0, 0), 1_000_000, late)
    # 1 alone, then 2 together bound at 10 ms, then the last at 25 ms; stage two is busy from
    # 10 to 30, 30 to 60 and 60 to 80 ms.
    assert [each.latency_us for each in result.outcomes] == [30_000, 60_000, 60_000, 80_000]


def test_a_large_request_is_answered_when_its_last_slice_is() -> None:
    plan = a_plan(a_model_plan([a_pool(latencies_us=(10_000, 15_000))]))
    result = simulate_plan(plan, arrivals(0, samples=5), 1_000_000, Scenario())
    assert [each.latency_us for each in result.outcomes] == [40_000]
    assert [each.samples for each in result.intervals] == [2, 2, 1]


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    plan = a_plan(a_model_plan(STAGES, throughput_rps=60.0))
    load = planned_load(plan, 0.9, 2_000_000, Poisson(), 1)
    runs = [
        simulate_plan(plan, load, 2_000_000, Scenario(jitter_sigma=0.1, seed=seed)).outcomes
        for seed in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_overload_is_refused_in_time_and_goodput_holds() -> None:
    plan = a_plan(a_model_plan(STAGES, slo_us=150_000, throughput_rps=60.0))
    load = planned_load(plan, 3.0, 5_000_000, Poisson(), 1)
    summary = simulate_plan(plan, load, 5_000_000, Scenario()).summary()
    assert summary.attainment < 0.5
    assert summary.goodput_rps > 0.9 * 60
    assert set(summary.refusals) == {"deadline"}
    assert summary.in_time == summary.answered  # what is answered is answered in time


def test_a_light_load_is_met() -> None:
    plan = a_plan(a_model_plan(STAGES, slo_us=150_000, throughput_rps=60.0))
    load = planned_load(plan, 0.5, 5_000_000, Poisson(), 1)
    assert simulate_plan(plan, load, 5_000_000, Scenario()).summary().attainment > 0.99


def test_the_warm_up_is_served_but_not_counted() -> None:
    plan = a_plan(a_model_plan(STAGES))
    scenario = Scenario(warmup_us=500_000)
    result = simulate_plan(plan, arrivals(0, 600_000), 1_000_000, scenario)
    assert [each.arrival_us for each in result.outcomes] == [600_000]
    assert result.span_us == 500_000
    assert len(result.intervals) == 4


def test_utilisation_is_the_busy_part_of_the_span() -> None:
    plan = a_plan(a_model_plan(STAGES))
    result = simulate_plan(plan, arrivals(0), 1_000_000, Scenario())
    assert result.utilisation() == {"p0/0": 0.01, "p1/0": 0.02}


def test_an_unknown_model_in_the_trace_is_named() -> None:
    plan = a_plan(a_model_plan(STAGES))
    wrong = [Arrival(arrival_us=0, model=ModelName("other"))]
    with pytest.raises(InvalidInput, match="other"):
        simulate_plan(plan, wrong, 1_000_000, Scenario())


def test_unknown_names_list_the_known_ones() -> None:
    plan = a_plan(a_model_plan(STAGES))
    with pytest.raises(UnknownName, match="aimd, fixed, "):
        simulate_plan(plan, [], 1, Scenario(batching="best"))


def test_a_warm_up_that_leaves_nothing_is_refused() -> None:
    plan = a_plan(a_model_plan(STAGES))
    with pytest.raises(InvalidInput, match="warmup"):
        simulate_plan(plan, [], 1_000, Scenario(warmup_us=1_000))


def test_models_that_share_gpus_run_as_if_alone() -> None:
    half = Fraction(1, 2)
    models = [
        a_model_plan([a_pool(name, latencies_us=(10_000,), share=half)], model=ModelName(name))
        for name in ("m", "n")
    ]
    load = [Arrival(arrival_us=0, model=model.model) for model in models]
    plan = a_plan(*models, packing="whole-gpu")
    result = simulate_plan(plan, load, 1_000_000, Scenario())
    assert [(each.model, each.latency_us) for each in result.outcomes] == [
        ("m", 10_000),
        ("n", 10_000),
    ]
    assert [(each.instance, each.start_us) for each in result.intervals] == [("m/0", 0), ("n/0", 0)]


def test_stages_on_one_gpu_hand_over_within_their_server() -> None:
    pools = [replace(each, share=Fraction(1, 2), gpu_class=STAGES[0].gpu_class) for each in STAGES]
    model = a_model_plan(pools, transfer_us=500)
    latencies = [
        simulate_plan(plan, arrivals(0), 1_000_000, Scenario()).outcomes[0].latency_us
        for plan in (a_plan(model), a_plan(model, packing="whole-gpu"))
    ]
    assert latencies == [30_500, 30_000]


def test_reports_say_what_was_simulated() -> None:
    plan = a_plan(a_model_plan(STAGES))
    result = simulate_plan(plan, arrivals(0), 1_000_000, Scenario())
    report = summary_json(plan, result)
    assert report["simulated"] is True
    rows = list(csv.DictReader(io.StringIO(outcomes_csv(result))))
    assert rows == [
        {
            "model": "m",
            "arrival_us": "0",
            "samples": "1",
            "slo_us": "100000",
            "latency_us": "30000",
            "cause": "",
        }
    ]

"""From what a person asked for to a load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.bench import BenchOptions, load_of
from client.inputs import random_inputs
from client.load import LoadSettings, Target
from penstock.arrivals import Constant, Poisson, Replay, Window
from penstock.domain.arrivals import Arrival, Load, ModelTrace, RequestTrace, Trace
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.ids import ModelName
from simulator.load import replayed_load
from tests.support.builders import a_model_plan, a_plan, a_pool

SECOND = 1_000_000
M, N = ModelName("m"), ModelName("n")
WHOLE = Window()
OPTIONS = BenchOptions(
    address="127.0.0.1:1",
    model="m",
    arrivals=Poisson(),
    rate_rps=None,
    duration_us=SECOND,
    samples=1,
    connections=1,
    deadline_us=SECOND,
    timeout_us=None,
    slo_us=None,
    inputs=None,
    seed=0,
    max_requests=1_000,
)
TRACE = ModelTrace(
    (
        Arrival(arrival_us=0, model=M, slo_us=500),
        Arrival(arrival_us=10, model=N, samples=2),
        Arrival(arrival_us=20, model=M),
    )
)
REQUESTS = RequestTrace((0, 250_000, SECOND, 2 * SECOND - 1))


def traced(trace: Trace, window: Window = WHOLE, scale: float | None = None) -> BenchOptions:
    replay = Replay(trace=trace, window=window, rate_scale=scale)
    return replace(OPTIONS, arrivals=replay, duration_us=None)


def test_equal_seeds_give_equal_loads() -> None:
    first, again = load_of(OPTIONS, [M]), load_of(OPTIONS, [M])
    assert first == again != load_of(replace(OPTIONS, seed=1), [M])


def test_a_law_comes_at_its_rate_with_its_samples() -> None:
    options = replace(OPTIONS, arrivals=Constant(), samples=3, rate_rps=50.0)
    load = load_of(options, [M])
    assert (len(load.arrivals), load.span_us) == (50, SECOND)
    assert load.arrivals[1] == Arrival(arrival_us=20_000, model=M, samples=3)


def test_a_law_has_a_usual_rate_and_duration() -> None:
    load = load_of(replace(OPTIONS, arrivals=Constant(), duration_us=None), [M])
    assert (len(load.arrivals), load.span_us) == (1_000, 10 * SECOND)


def test_a_load_is_bounded_in_number() -> None:
    load = load_of(replace(OPTIONS, arrivals=Constant(), max_requests=7), [M])
    assert (len(load.arrivals), load.span_us) == (7, 60_001)


def test_a_trace_of_ours_is_kept_as_it_is() -> None:
    assert load_of(traced(TRACE), []) == Load(arrivals=TRACE.arrivals, span_us=21)


def test_a_trace_of_ours_is_cut_to_a_model_and_a_window() -> None:
    options = replace(traced(TRACE, Window(0, 20)), slo_us=9)
    assert load_of(options, [M]).arrivals == (Arrival(arrival_us=0, model=M, slo_us=9),)


def test_a_trace_that_names_nobody_asks_the_models_that_are_there() -> None:
    load = load_of(replace(traced(REQUESTS), samples=4), [N, M])
    assert [(each.model, each.samples) for each in load.arrivals] == [
        ("m", 4),
        ("n", 4),
        ("m", 4),
        ("n", 4),
    ]


@pytest.mark.parametrize(("rate", "scale"), [(10.0, None), (None, 5.0)])
def test_a_trace_is_scaled_in_number(rate: float | None, scale: float | None) -> None:
    options = replace(traced(REQUESTS, scale=scale), rate_rps=rate)
    load = load_of(options, [M])
    assert (len(load.arrivals), load.span_us) == (20, 2 * SECOND)
    assert {0, 250_000, SECOND} < {each.arrival_us for each in load.arrivals}


@pytest.mark.parametrize("scale", [None, 0.5, 3.3])
def test_the_simulator_makes_the_same_load_of_a_trace(scale: float | None) -> None:
    plan = a_plan(*(a_model_plan([a_pool(name)], model=name) for name in (N, M)))
    options = traced(REQUESTS, Window(1, 2 * SECOND), scale)
    assert isinstance(options.arrivals, Replay)
    assert load_of(options, [M, N]) == replayed_load(plan, options.arrivals, None, options.seed)


def settings(*models: str, deadline_us: int = 1) -> LoadSettings:
    inputs = random_inputs((TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),), 0)
    return LoadSettings(
        address="127.0.0.1:1",
        arrivals=tuple(Arrival(arrival_us=0, model=ModelName(model)) for model in models),
        targets={M: Target(inputs=inputs, slo_us=1)},
        duration_us=1,
        deadline_us=deadline_us,
    )


def test_a_load_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="expected at least one request, found none"):
        settings()


def test_a_load_on_a_model_without_inputs_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown model of the load 'n'; known: m"):
        settings("m", "n")


def test_limits_must_be_above_zero() -> None:
    with pytest.raises(InvalidSettings, match="deadline_us: expected a number above 0, found 0"):
        settings("m", deadline_us=0)

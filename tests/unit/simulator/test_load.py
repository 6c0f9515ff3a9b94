"""The load of a trace on a plan."""

from __future__ import annotations

from collections import Counter

import pytest

from penstock.arrivals import Replay, Window
from penstock.domain.arrivals import Arrival, ModelTrace, RequestTrace
from penstock.domain.errors import InvalidSettings, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from simulator.load import replayed_load
from tests.support.builders import a_model_plan, a_plan, a_pool

SECOND = 1_000_000
M, N = ModelName("m"), ModelName("n")
REQUESTS = RequestTrace(tuple(range(0, 10 * SECOND, SECOND // 10)))


def plan_of(**throughputs_rps: float) -> Plan:
    models = [
        a_model_plan([a_pool(f"{name}-pool")], model=ModelName(name), throughput_rps=rate)
        for name, rate in throughputs_rps.items()
    ]
    return a_plan(*models)


def test_a_trace_is_offered_as_it_is() -> None:
    load = replayed_load(plan_of(n=30.0, m=90.0), Replay(trace=REQUESTS), None, seed=0)
    assert Counter(each.model for each in load.arrivals) == {M: 50, N: 50}
    assert load.span_us == 10 * SECOND - SECOND // 10 + 1


def test_a_trace_is_fitted_to_each_models_planned_throughput() -> None:
    window = Window(0, 8 * SECOND)
    replay = Replay(trace=REQUESTS, window=window)
    load = replayed_load(plan_of(n=3.0, m=90.0), replay, 0.5, seed=0)
    assert Counter(each.model for each in load.arrivals) == {M: 0.5 * 90 * 8, N: 0.5 * 3 * 8}
    assert load == replayed_load(plan_of(n=3.0, m=90.0), replay, 0.5, seed=0)
    assert load != replayed_load(plan_of(n=3.0, m=90.0), replay, 0.5, seed=1)


def test_a_fit_counts_samples() -> None:
    arrivals = tuple(Arrival(arrival_us=at * SECOND, model=M, samples=5) for at in range(4))
    replay = Replay(trace=ModelTrace((*arrivals, Arrival(arrival_us=4 * SECOND - 1, model=M))))
    load = replayed_load(plan_of(m=42.0, n=1.0), replay, 1.0, seed=0)
    assert len(load.arrivals) == 5 * 8  # 21 samples in 4 s, times 8


def test_a_trace_is_scaled() -> None:
    replay = Replay(trace=REQUESTS, rate_scale=0.3)
    load = replayed_load(plan_of(m=1.0, n=1.0), replay, None, seed=0)
    assert Counter(each.model for each in load.arrivals) == {M: 15, N: 15}


def test_a_model_that_the_plan_does_not_have_is_named() -> None:
    trace = ModelTrace((Arrival(arrival_us=0, model=ModelName("other")),))
    with pytest.raises(UnknownName, match="unknown model of the trace 'other'; known: m, n"):
        replayed_load(plan_of(n=1.0, m=1.0), Replay(trace=trace), None, seed=0)


def test_nothing_left_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="at least one request in its window"):
        replayed_load(plan_of(m=1.0), Replay(trace=REQUESTS, window=Window(SECOND * 60)), None, 0)
    with pytest.raises(InvalidSettings, match="at least one request left"):
        replayed_load(plan_of(m=1.0), Replay(trace=REQUESTS), 0.001, 0)

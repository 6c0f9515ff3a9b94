"""From a trace to a load: models, windows and rates."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.arrivals import MOST_REQUESTS, Window, offered_rps, poisson, scale, traced_load
from penstock.domain.arrivals import (
    Arrival,
    CallTrace,
    CountTrace,
    FunctionCalls,
    FunctionCounts,
    Load,
    ModelTrace,
    RequestTrace,
    Trace,
)
from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import ModelName

SECOND = 1_000_000
A, B = ModelName("a"), ModelName("b")
WHOLE = Window()


def load_of(trace: Trace, *models: ModelName, window: Window = WHOLE, seed: int = 0) -> Load:
    return traced_load(trace, window, models, 1, random.Random(seed))


def asked(load: Load) -> list[tuple[int, str]]:
    return [(each.arrival_us, each.model) for each in load.arrivals]


def of_model(*instants: int, model: ModelName = A) -> tuple[Arrival, ...]:
    return tuple(Arrival(arrival_us=instant, model=model) for instant in instants)


def test_a_trace_of_ours_keeps_models_samples_and_slos() -> None:
    arrivals = (
        Arrival(arrival_us=3, model=B, samples=4, slo_us=5),
        Arrival(arrival_us=3, model=A),
        Arrival(arrival_us=9, model=A),
    )
    assert load_of(ModelTrace(arrivals)) == Load(arrivals=arrivals, span_us=10)


def test_requests_that_name_nobody_go_to_the_models_in_turn() -> None:
    load = traced_load(RequestTrace((0, 5, 5, 8)), WHOLE, (B, A), 3, random.Random(0))
    assert asked(load) == [(0, A), (5, B), (5, A), (8, B)]
    assert {each.samples for each in load.arrivals} == {3}


def test_functions_go_to_the_models_in_stripes_of_their_rank() -> None:
    # Ranked by calls, then by name: busy, tie-1, tie-2, idle.
    functions = (
        FunctionCalls("idle", (1,)),
        FunctionCalls("tie-2", (2, 6)),
        FunctionCalls("busy", (0, 3, 7)),
        FunctionCalls("tie-1", (4, 5)),
    )
    stripes = [(0, A), (1, B), (2, A), (3, A), (4, B), (5, B), (6, A), (7, A)]
    assert asked(load_of(CallTrace(functions), A, B)) == stripes
    assert asked(load_of(CallTrace(functions[::-1]), B, A)) == stripes


def test_another_window_changes_nobodys_model() -> None:
    functions = (FunctionCalls("busy", (0, 3, 7)), FunctionCalls("idle", (4, 5)))
    assert asked(load_of(CallTrace(functions), A, B, window=Window(4, 6))) == [(0, B), (1, B)]
    later = load_of(RequestTrace((0, 5, 6, 8)), A, B, window=Window(5, 8))
    assert (asked(later), later.span_us) == ([(0, B), (1, A)], 3)


MINUTE = 60 * SECOND


def test_counted_calls_are_spread_over_their_minute() -> None:
    trace = CountTrace((FunctionCounts("f", (1_000, 0, 3)),))
    load = load_of(trace, A, seed=1)
    minutes = Counter(each.arrival_us // MINUTE for each in load.arrivals)
    assert (dict(minutes), load.span_us) == ({0: 1_000, 2: 3}, 3 * MINUTE)
    first = [each.arrival_us for each in load.arrivals[:1_000]]
    assert sum(first) / 1_000 == pytest.approx(MINUTE / 2, rel=0.05)
    assert load == load_of(trace, A, seed=1) != load_of(trace, A, seed=2)


def test_of_counted_calls_only_the_window_is_made() -> None:
    trace = CountTrace((FunctionCounts("f", (MOST_REQUESTS, 10, 10)),))
    assert len(load_of(trace, A, window=Window(MINUTE)).arrivals) == 20
    half = load_of(trace, A, window=Window(MINUTE, 3 * MINUTE // 2))
    assert 0 < len(half.arrivals) < 10
    assert half.span_us == MINUTE // 2
    with pytest.raises(InvalidSettings, match="at most 20,000,000 requests; a shorter window"):
        load_of(trace, A)


@pytest.mark.parametrize(
    "trace",
    [
        ModelTrace(()),
        RequestTrace(()),
        CallTrace(()),
        CountTrace(()),
        CountTrace((FunctionCounts("f", (0, 0)),)),
    ],
    ids=lambda trace: type(trace).__name__,
)
def test_an_empty_trace_is_no_load(trace: Trace) -> None:
    with pytest.raises(InvalidSettings, match="expected at least one request in its window"):
        load_of(trace, A)


@pytest.mark.parametrize("window", [Window(9), Window(1, 8), Window(5, 5), Window(8, 2)])
def test_a_window_without_requests_is_no_load(window: Window) -> None:
    with pytest.raises(InvalidSettings, match="expected at least one request in its window"):
        load_of(RequestTrace((0, 8)), A, window=window)


def test_a_window_ends_at_its_end_or_after_a_duration() -> None:
    assert Window(3).first(None) == Window(3)
    assert Window(3).first(4) == Window(3, 7)
    assert Window(3, 5).first(4) == Window(3, 5)
    assert Window(3, 9).first(4) == Window(3, 7)


LOADS = st.builds(
    lambda us, models, rest: Load(
        arrivals=tuple(
            Arrival(arrival_us=at, model=model)
            for at, model in zip(sorted(us), models, strict=False)
        ),
        span_us=max(us) + 1 + rest,
    ),
    st.lists(st.integers(0, 1_000), min_size=1, max_size=30),
    st.lists(st.sampled_from([A, B]), min_size=30, max_size=30),
    st.integers(0, 50),
)


@given(LOADS, st.floats(0.3, 5), st.floats(0.3, 5), st.integers(0, 9))
def test_scaling_offers_what_was_asked_over_the_same_time(
    load: Load, of_a: float, of_b: float, seed: int
) -> None:
    had = Counter(each.model for each in load.arrivals)
    wanted = {model: round(had[model] * by) for model, by in ((A, of_a), (B, of_b))}
    if not any(wanted.values()):
        return
    scaled = scale(load, {A: of_a, B: of_b}, random.Random(seed))
    instants = [each.arrival_us for each in scaled.arrivals]
    assert Counter(each.model for each in scaled.arrivals) == Counter(wanted)
    assert instants == sorted(instants)
    assert all(0 <= instant < load.span_us for instant in instants)
    assert scaled.span_us == load.span_us


@given(LOADS, st.floats(0.3, 1))
def test_thinning_only_leaves_requests_out(load: Load, factor: float) -> None:
    if all(
        round(count * factor) == 0 for count in Counter(a.model for a in load.arrivals).values()
    ):
        return
    thinned = scale(load, {A: factor, B: factor}, random.Random(0))
    assert not Counter(asked(thinned)) - Counter(asked(load))


def test_scaling_by_one_changes_nothing() -> None:
    load = Load(arrivals=of_model(1, 1, 7), span_us=9)
    assert scale(load, {A: 1.0}, random.Random(0)) == load


def test_copies_come_before_the_tenth_request_of_their_model_after_them() -> None:
    of_a = of_model(0, *range(100, 1_100, 100), 10_000, model=A)
    of_b = of_model(*range(50, 1_050, 100), model=B)
    arrivals = tuple(sorted(of_a + of_b, key=lambda each: each.arrival_us))
    load = Load(arrivals=arrivals, span_us=20_000)
    copied = scale(load, {A: 50.0, B: 1.0}, random.Random(0))
    instants = [each.arrival_us for each in copied.arrivals if each.model == A]
    assert {each.arrival_us for each in of_a} <= set(instants)
    assert (
        sum(at < 1_000 for at in instants) > 50 + 50 * 9 / 20
    )  # all copies of the first, some more
    assert max(instants) > 10_000  # of the last ones, until the end
    assert instants.count(0) == 1
    assert len(set(instants)) > 500  # not on top of one another
    lone = scale(Load(arrivals=of_model(3), span_us=50), {A: 9.0}, random.Random(0))
    assert all(3 <= each.arrival_us < 50 for each in lone.arrivals)


def test_bursts_stay_as_long_when_a_trace_is_multiplied() -> None:
    burst = [30 * SECOND + 1_000 * number for number in range(500)]
    quiet = range(0, 60 * SECOND, SECOND)
    load = Load(arrivals=of_model(*sorted([*burst, *quiet])), span_us=60 * SECOND)
    multiplied = scale(load, {A: 4.0}, random.Random(0))
    inside = sum(30 * SECOND <= each.arrival_us < 30.5 * SECOND for each in multiplied.arrivals)
    assert inside == pytest.approx(4 * 500, rel=0.02)


def test_a_thinned_poisson_process_is_one() -> None:
    instants = poisson(1_000.0, 100 * SECOND, random.Random(1))
    load = Load(arrivals=of_model(*instants), span_us=100 * SECOND)
    thinned = scale(load, {A: 0.25}, random.Random(2))
    counts = Counter(each.arrival_us // (SECOND // 10) for each in thinned.arrivals)
    mean = len(thinned.arrivals) / 1_000
    variance = sum((counts[each] - mean) ** 2 for each in range(1_000)) / 1_000
    assert len(thinned.arrivals) == round(len(instants) / 4)
    assert variance / mean == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0.1, "trace: scale: expected at least one request left, found none"),
        (0.0, "trace: scale: expected a number above 0, found 0"),
        (float("nan"), "trace: scale: expected a number above 0, found nan"),
        (1e9, "expected at most 20,000,000 requests; a shorter window has fewer, found 3,000,000"),
    ],
)
def test_a_scale_that_leaves_nothing_or_too_much_is_refused(factor: float, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        scale(Load(arrivals=of_model(1, 2, 3), span_us=9), {A: factor}, random.Random(0))


def test_offered_rates_count_samples() -> None:
    arrivals = (*of_model(0, 5), Arrival(arrival_us=7, model=B, samples=6))
    load = Load(arrivals=arrivals, span_us=2 * SECOND)
    assert offered_rps(load) == {A: 1.0, B: 3.0}
    assert offered_rps(replace(load, span_us=SECOND)) == {A: 2.0, B: 6.0}

"""From what a person asked for to a load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from client.bench import BenchOptions, arrivals_of, run_bench
from client.inputs import random_inputs
from client.load import LoadSettings, Target
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidSettings, InvalidTrace, UnknownName
from penstock.domain.ids import ModelName

SECOND = 1_000_000
M = ModelName("m")
OPTIONS = BenchOptions(
    address="127.0.0.1:1",
    model="m",
    arrivals="poisson",
    rate_rps=100.0,
    duration_us=SECOND,
    trace=None,
    samples=1,
    connections=1,
    deadline_us=SECOND,
    timeout_us=None,
    slo_us=None,
    inputs=None,
    seed=0,
    max_requests=1_000,
)
TRACE = "arrival_us,model,samples,slo_us\n0,m,1,500\n10,n,2,\n20,m,1,\n"


@pytest.fixture
def traced(tmp_path: Path) -> BenchOptions:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return replace(OPTIONS, arrivals="trace", trace=path, duration_us=None)


def test_equal_seeds_give_equal_arrivals() -> None:
    first, again = arrivals_of(OPTIONS, M), arrivals_of(OPTIONS, M)
    assert first == again != arrivals_of(replace(OPTIONS, seed=1), M)


def test_constant_arrivals_with_their_samples() -> None:
    arrivals = arrivals_of(replace(OPTIONS, arrivals="constant", samples=3), M)
    assert len(arrivals) == 100
    assert arrivals[1] == Arrival(arrival_us=10_000, model=M, samples=3)


def test_a_load_is_bounded_in_number() -> None:
    assert len(arrivals_of(replace(OPTIONS, max_requests=7), M)) == 7


def test_a_trace_is_kept_as_it_is(traced: BenchOptions) -> None:
    arrivals = arrivals_of(traced, ModelName(""))
    assert [(each.model, each.slo_us) for each in arrivals] == [
        ("m", 500),
        ("n", None),
        ("m", None),
    ]


def test_a_trace_is_cut_to_a_model_and_a_duration(traced: BenchOptions) -> None:
    arrivals = arrivals_of(replace(traced, duration_us=20, slo_us=9), M)
    assert arrivals == (Arrival(arrival_us=0, model=M, slo_us=9),)


def test_a_broken_trace_is_told(traced: BenchOptions) -> None:
    assert traced.trace is not None
    traced.trace.write_text("when\n1\n")
    with pytest.raises(InvalidTrace):
        arrivals_of(traced, M)


@pytest.mark.parametrize("arrivals", ["poisson", "trace"])
async def test_trace_and_arrivals_must_agree(arrivals: str, traced: BenchOptions) -> None:
    wrong = replace(OPTIONS, arrivals=arrivals, trace=traced.trace if arrivals != "trace" else None)
    with pytest.raises(InvalidSettings, match="expected --arrivals trace together with --trace"):
        await run_bench(wrong)


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

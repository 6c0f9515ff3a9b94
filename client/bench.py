"""A load from what a person asked for: which arrivals, which models, what to send.

What a person left open is asked of the server: the model, its inputs, its SLO. Knows nothing of
the command line and prints nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from client.infer import InferenceClient, RequestFailed
from client.inputs import Inputs, random_inputs, read_inputs
from client.load import LoadSettings, OnProgress, Target, run_load
from client.messages import ModelFacts
from client.outcomes import LoadResult
from penstock.arrivals import constant, poisson
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import ModelName
from penstock.domain.units import US_PER_SECOND, Micros
from penstock.formats.traces import read_trace

POISSON, CONSTANT, TRACE = "poisson", "constant", "trace"

_ANSWER_SOON_US = 10 * US_PER_SECOND
_USUAL_DURATION_US = 10 * US_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What a person asked for.

    Attributes:
        model: empty for the only one that is served, or for those the trace names.
        arrivals: ``poisson``, ``constant`` or ``trace``.
        duration_us: None: as long as the trace, or 10 s.
        samples: rows per request; a trace has its own.
        timeout_us: the ``timeout`` parameter of each request; None: the server's own.
        slo_us: None: the trace's, else the server's.
        inputs: None: random rows.
        max_requests: the load ends after so many.
    """

    address: str
    model: str
    arrivals: str
    rate_rps: float
    duration_us: Micros | None
    trace: Path | None
    samples: int
    connections: int
    deadline_us: Micros
    timeout_us: Micros | None
    slo_us: Micros | None
    inputs: Path | None
    seed: int
    max_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A load that has ended, and what it asked.

    Attributes:
        emulated: the server says that emulated devices set the pace.
    """

    settings: LoadSettings
    result: LoadResult
    emulated: bool


async def run_bench(options: BenchOptions, on_progress: OnProgress | None = None) -> BenchResult:
    """Ask the server what is open, then send the load.

    Raises:
        InvalidInput: options, trace or inputs do not fit together or the model.
        RequestFailed: the server did not answer before the load.
    """
    _check_trace(options)
    async with InferenceClient(options.address) as client:
        await client.wait_connected(_ANSWER_SOON_US)
        model = ModelName(options.model or await _only_model(client, options))
        arrivals = arrivals_of(options, model)
        names = sorted({arrival.model for arrival in arrivals})
        facts = [await client.facts(name, deadline_us=_ANSWER_SOON_US) for name in names]
    settings = LoadSettings(
        address=options.address,
        arrivals=arrivals,
        targets={ModelName(each.name): _target(options, each, arrivals) for each in facts},
        duration_us=_duration_us(options, arrivals),
        connections=options.connections,
        deadline_us=options.deadline_us,
        timeout_us=options.timeout_us,
    )
    result = await run_load(settings, on_progress=on_progress)
    emulated = any(each.emulated for each in facts)
    return BenchResult(settings=settings, result=result, emulated=emulated)


def arrivals_of(options: BenchOptions, model: ModelName) -> tuple[Arrival, ...]:
    """Return the arrivals asked for, sorted, at most `max_requests`.

    Args:
        options: what the person asked for.
        model: whom generated arrivals ask; of a trace, only its arrivals are kept unless empty.

    Raises:
        InvalidInput: the rate or duration makes no load, or the trace is not one.
        OSError: the trace cannot be opened.
    """
    if options.trace is not None:
        arrivals = _traced(options, options.trace, model)
    else:
        arrivals = tuple(
            Arrival(arrival_us=instant, model=model, samples=options.samples)
            for instant in _instants(options)
        )
    return arrivals[: options.max_requests]


def _check_trace(options: BenchOptions) -> None:
    if (options.trace is not None) != (options.arrivals == TRACE):
        found = "with" if options.trace is not None else "without"
        found = f"--arrivals {options.arrivals} {found} --trace"
        raise InvalidSettings("bench", "", f"--arrivals {TRACE} together with --trace", found)


def _instants(options: BenchOptions) -> tuple[Micros, ...]:
    duration_us = options.duration_us or _USUAL_DURATION_US
    if options.arrivals == CONSTANT:
        return constant(options.rate_rps, duration_us)
    return poisson(options.rate_rps, duration_us, random.Random(options.seed))


def _traced(options: BenchOptions, path: Path, model: ModelName) -> tuple[Arrival, ...]:
    end_us = options.duration_us
    return tuple(
        replace(arrival, slo_us=options.slo_us or arrival.slo_us)
        for arrival in read_trace(path.read_text(encoding="utf-8"), str(path))
        if model in ("", arrival.model) and (end_us is None or arrival.arrival_us < end_us)
    )


def _duration_us(options: BenchOptions, arrivals: tuple[Arrival, ...]) -> Micros:
    """Return how long requests are offered: as asked, unless a trace or a bound ends before."""
    if options.trace is not None or len(arrivals) == options.max_requests:
        return arrivals[-1].arrival_us + 1 if arrivals else 1
    return options.duration_us or _USUAL_DURATION_US


async def _only_model(client: InferenceClient, options: BenchOptions) -> str:
    """Return the one model that is served; nothing if a trace names its models."""
    if options.trace is not None:
        return ""
    try:
        names = await client.models(deadline_us=_ANSWER_SOON_US)
    except RequestFailed as failure:
        found = f"none, and the server lists none ({failure.status})"
        raise InvalidSettings("bench", "--model", "a name", found) from failure
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "no model"
        raise InvalidSettings("bench", "--model", f"one of those {options.address} serves", found)
    return names[0]


def _target(options: BenchOptions, facts: ModelFacts, arrivals: tuple[Arrival, ...]) -> Target:
    traced = (each.slo_us for each in arrivals if each.model == facts.name and each.slo_us)
    slo_us = options.slo_us or facts.slo_us or max(traced, default=None)
    if slo_us is None:
        raise InvalidSettings("bench", "--slo-ms", f"an SLO for {facts.name!r}", "none anywhere")
    return Target(inputs=_inputs(options, facts), slo_us=slo_us)


def _inputs(options: BenchOptions, facts: ModelFacts) -> Inputs:
    if options.inputs is None:
        return random_inputs(facts.inputs, options.seed)
    return read_inputs(options.inputs, facts.inputs)

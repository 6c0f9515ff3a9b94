"""A load from what a person asked for: which arrivals, which models, what to send.

What a person left open is asked of the server: the model, its inputs, its SLO. Knows nothing of
the command line and prints nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.infer import InferenceClient, RequestFailed
from client.inputs import Inputs, random_inputs, read_inputs
from client.load import LoadSettings, OnProgress, Target, run_load
from client.messages import ModelFacts
from client.outcomes import LoadResult
from penstock.arrivals import Law, Replay, instants_of, scale, traced_load
from penstock.domain.arrivals import Arrival, Load, ModelTrace
from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import ModelName
from penstock.domain.units import US_PER_SECOND, Micros

_ANSWER_SOON_US = 10 * US_PER_SECOND
_USUAL_DURATION_US = 10 * US_PER_SECOND
_USUAL_RATE_RPS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What a person asked for.

    Attributes:
        model: empty for the only one that is served; with a trace for those it names, or, if it
            names none, for all that are served.
        arrivals: by a law, or from a trace.
        rate_rps: requests per second in the mean; None: as many as the trace has, or 100.
        duration_us: of a law; None: 10 s. The window of a trace says how long it is.
        samples: rows per request; a trace has its own.
        timeout_us: the ``timeout`` parameter of each request; None: the server's own.
        slo_us: None: the trace's, else the server's.
        inputs: None: random rows.
        max_requests: the load ends after so many.
    """

    address: str
    model: str
    arrivals: Law | Replay
    rate_rps: float | None
    duration_us: Micros | None
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
    async with InferenceClient(options.address) as client:
        await client.wait_connected(_ANSWER_SOON_US)
        load = load_of(options, await _models(client, options))
        names = sorted({arrival.model for arrival in load.arrivals})
        facts = [await client.facts(name, deadline_us=_ANSWER_SOON_US) for name in names]
    settings = LoadSettings(
        address=options.address,
        arrivals=load.arrivals,
        targets={ModelName(each.name): _target(options, each, load.arrivals) for each in facts},
        duration_us=load.span_us,
        connections=options.connections,
        deadline_us=options.deadline_us,
        timeout_us=options.timeout_us,
    )
    result = await run_load(settings, on_progress=on_progress)
    emulated = any(each.emulated for each in facts)
    return BenchResult(settings=settings, result=result, emulated=emulated)


def load_of(options: BenchOptions, models: Sequence[ModelName]) -> Load:
    """Return the load asked for, of at most `max_requests`.

    Args:
        options: what the person asked for.
        models: whom to ask; of a trace that names its models, only requests to these are kept,
            all if there are none.

    Raises:
        InvalidInput: rate, duration or trace make no load.
    """
    if isinstance(options.arrivals, Replay):
        load = _traced(options, options.arrivals, models)
    else:
        load = _drawn(options, options.arrivals, models[0])
    if len(load.arrivals) <= options.max_requests:
        return load
    arrivals = load.arrivals[: options.max_requests]
    return Load(arrivals=arrivals, span_us=arrivals[-1].arrival_us + 1)


def _drawn(options: BenchOptions, law: Law, model: ModelName) -> Load:
    rate_rps = _USUAL_RATE_RPS if options.rate_rps is None else options.rate_rps
    span_us = _USUAL_DURATION_US if options.duration_us is None else options.duration_us
    instants = instants_of(law, rate_rps, span_us, random.Random(options.seed))
    arrivals = tuple(
        Arrival(arrival_us=instant, model=model, samples=options.samples) for instant in instants
    )
    return Load(arrivals=arrivals, span_us=span_us)


def _traced(options: BenchOptions, replay: Replay, models: Sequence[ModelName]) -> Load:
    trace, dice = replay.trace, random.Random(options.seed)
    if isinstance(trace, ModelTrace) and models:
        trace = ModelTrace(tuple(each for each in trace.arrivals if each.model in models))
    load = traced_load(trace, replay.window, models, options.samples, dice)
    factor = replay.rate_scale
    if options.rate_rps is not None:
        factor = options.rate_rps * load.span_us / US_PER_SECOND / len(load.arrivals)
    if factor is not None:
        asked = {each.model for each in load.arrivals}
        load = scale(load, dict.fromkeys(asked, factor), dice)
    if options.slo_us is None:
        return load
    arrivals = tuple(replace(each, slo_us=options.slo_us) for each in load.arrivals)
    return replace(load, arrivals=arrivals)


async def _models(client: InferenceClient, options: BenchOptions) -> list[ModelName]:
    """Return whom to ask; nobody, if a trace of ours says it."""
    if options.model:
        return [ModelName(options.model)]
    replay = options.arrivals if isinstance(options.arrivals, Replay) else None
    if replay is not None and isinstance(replay.trace, ModelTrace):
        return []
    try:
        names = await client.models(deadline_us=_ANSWER_SOON_US)
    except RequestFailed as failure:
        found = f"none, and the server lists none ({failure.status})"
        raise InvalidSettings("bench", "--model", "a name", found) from failure
    if not names or (replay is None and len(names) > 1):
        found = ", ".join(sorted(names)) or "no model"
        raise InvalidSettings("bench", "--model", f"one of those {options.address} serves", found)
    return [ModelName(name) for name in sorted(names)]


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

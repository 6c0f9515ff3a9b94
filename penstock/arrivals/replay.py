"""From a trace to a load: whose requests they become, which part of them, and how many.

Pure: the caller brings the dice. Knows nothing of files and of plans.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import TypeVar, assert_never

from penstock.arrivals.processes import MOST_REQUESTS, Dice
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
from penstock.domain.units import US_PER_SECOND, Micros

MINUTE_US = 60 * US_PER_SECOND

# Copies of a request come before the tenth after it. One gap says little of the rate, and copies
# would pile up where it happens to be short; ten say it to about a third (1/√10).
NEIGHBOURS = 10

F = TypeVar("F", FunctionCalls, FunctionCounts)


@dataclass(frozen=True, slots=True)
class Window:
    """A part [start, end) of a trace.

    Attributes:
        end_us: None: to the end of the trace.
    """

    start_us: Micros = 0
    end_us: Micros | None = None

    def first(self, duration_us: Micros | None) -> Window:
        """Return the part of this window that ends after a duration, if not before."""
        if duration_us is None:
            return self
        end_us = self.start_us + duration_us
        return Window(self.start_us, end_us if self.end_us is None else min(end_us, self.end_us))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A trace, and how to use it.

    Attributes:
        rate_scale: so many times its requests; None: as many as it has.
    """

    trace: Trace
    window: Window = Window()
    rate_scale: float | None = None


def traced_load(
    trace: Trace, window: Window, models: Iterable[ModelName], samples: int, dice: Dice
) -> Load:
    """Return the load that a part of a trace makes, from 0.

    A trace of ours keeps its models. Of the others, requests that name nobody go to the models in
    turn. Functions are ranked by their calls, and those of each rank go to the models in turn, so
    that each model gets busy and idle ones. Turns go by the whole trace and the models' names:
    another window, or another order of models, changes nobody's model.

    Args:
        trace: what was recorded.
        window: the part to take.
        models: who is asked; a trace of ours names its own.
        samples: rows of each request, unless the trace tells.
        dice: spread calls inside a minute, if the trace only counts them.

    Raises:
        InvalidSettings: no request is in the window, or too many are.
    """
    end_us = _end_us(trace)
    if window.end_us is not None:
        end_us = min(end_us, window.end_us)
    part = range(window.start_us, end_us)
    offered = _arrivals(trace, sorted(models), part, samples, dice)
    arrivals = sorted(offered, key=lambda each: each.arrival_us)
    if not arrivals:
        raise InvalidSettings("trace", "", "at least one request in its window", "none")
    return Load(arrivals=tuple(arrivals), span_us=len(part))


def scale(load: Load, factors: Mapping[ModelName, float], dice: Dice) -> Load:
    """Return a load with more or fewer requests of each model over the same time.

    Of n requests, round(n · factor) are offered: each as often as that goes into whole numbers,
    the rest drawn without repetition. The first copy of a request keeps its instant, others come
    at random before the tenth request of its model after it, so that bursts of more requests than
    that stay, and stay as long.

    Args:
        load: its requests.
        factors: above 0; for each model of the load.
        dice: asked for who is drawn, and for the instants of copies.

    Raises:
        InvalidSettings: nothing is left, or too much.
    """
    arrivals: list[Arrival] = []
    for model, factor in sorted(factors.items()):
        asked = [each for each in load.arrivals if each.model == model]
        arrivals.extend(_scaled(asked, factor, load.span_us, dice))
    if not arrivals:
        raise InvalidSettings("trace", "scale", "at least one request left", "none")
    arrivals.sort(key=lambda each: (each.arrival_us, each.model))
    return replace(load, arrivals=tuple(arrivals))


def offered_rps(load: Load) -> dict[ModelName, float]:
    """Return the samples per second that each model of a load is asked for."""
    samples = Counter[ModelName]()
    for each in load.arrivals:
        samples[each.model] += each.samples
    return {model: n * US_PER_SECOND / load.span_us for model, n in sorted(samples.items())}


def _end_us(trace: Trace) -> Micros:
    """Return the end of a trace: just after its last request, or with its last minute."""
    match trace:
        case ModelTrace(arrivals):
            return max((each.arrival_us + 1 for each in arrivals), default=0)
        case RequestTrace(instants):
            return max(instants, default=-1) + 1
        case CallTrace(functions):
            return max((instant + 1 for each in functions for instant in each.instants), default=0)
        case CountTrace(functions):
            return max((len(each.per_minute) * MINUTE_US for each in functions), default=0)
        case _:
            assert_never(trace)


def _arrivals(
    trace: Trace, models: Sequence[ModelName], part: range, samples: int, dice: Dice
) -> Iterator[Arrival]:
    if isinstance(trace, ModelTrace):
        for each in trace.arrivals:
            if each.arrival_us in part:
                yield replace(each, arrival_us=each.arrival_us - part.start)
        return
    for instant, model in _requests(trace, models, part, dice):
        if instant in part:
            yield Arrival(arrival_us=instant - part.start, model=model, samples=samples)


def _requests(
    trace: RequestTrace | CallTrace | CountTrace,
    models: Sequence[ModelName],
    part: range,
    dice: Dice,
) -> Iterator[tuple[Micros, ModelName]]:
    match trace:
        case RequestTrace(instants):
            for number, instant in enumerate(instants):
                yield instant, models[number % len(models)]
        case CallTrace(functions):
            for calls, model in _stripes(functions, models):
                for instant in calls.instants:
                    yield instant, model
        case CountTrace(functions):
            _check_number(sum(sum(each.per_minute[_minutes(part)]) for each in functions))
            for counts, model in _stripes(functions, models):
                for instant in _spread(counts, _minutes(part), dice):
                    yield instant, model
        case _:
            assert_never(trace)


def _stripes(functions: Sequence[F], models: Sequence[ModelName]) -> Iterator[tuple[F, ModelName]]:
    ranked = sorted(functions, key=lambda each: (-each.calls, each.name))
    for rank, function in enumerate(ranked):
        yield function, models[rank % len(models)]


def _minutes(part: range) -> slice:
    """Return the minutes that a part of the trace lies in."""
    return slice(part.start // MINUTE_US, -(-part.stop // MINUTE_US))


def _spread(counts: FunctionCounts, minutes: slice, dice: Dice) -> Iterator[Micros]:
    """Yield instants for counted calls, uniform in their minute: Poisson, given the count."""
    for number, calls in enumerate(counts.per_minute[minutes], minutes.start):
        for _ in range(calls):
            yield number * MINUTE_US + int(dice.random() * MINUTE_US)


def _scaled(
    arrivals: Sequence[Arrival], factor: float, span_us: Micros, dice: Dice
) -> Iterator[Arrival]:
    if not (factor > 0 and math.isfinite(factor)):
        raise InvalidSettings("trace", "scale", "a number above 0", f"{factor:g}")
    _check_number(len(arrivals) * factor)
    if not arrivals:
        return
    copies, drawn = divmod(round(len(arrivals) * factor), len(arrivals))
    ends_us = chain((each.arrival_us for each in arrivals[NEIGHBOURS:]), repeat(span_us))
    chosen = _draw(len(arrivals), drawn, dice)
    for arrival, end_us, extra in zip(arrivals, ends_us, chosen, strict=False):
        start_us = arrival.arrival_us
        for copy in range(copies + extra):
            later_us = int(dice.random() * (end_us - start_us)) if copy else 0
            yield replace(arrival, arrival_us=start_us + later_us)


def _draw(total: int, wanted: int, dice: Dice) -> Iterator[bool]:
    """Yield for each of `total` whether it is one of `wanted` drawn at random.

    Selection sampling, Knuth, TAOCP 2, 3.4.2, algorithm S.
    """
    for passed in range(total):
        taken = dice.random() * (total - passed) < wanted
        wanted -= taken
        yield taken


def _check_number(requests: float) -> None:
    if requests > MOST_REQUESTS:
        expected = f"at most {MOST_REQUESTS:,} requests; a shorter window has fewer"
        raise InvalidSettings("trace", "", expected, f"{requests:,.0f}")

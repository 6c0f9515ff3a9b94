"""What verbs that offer a load ask of a person: a law, or a trace and how to use it.

One piece for the simulator and the load generator, so that the same options make the same load.
Reads the trace; knows nothing of plans and servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.arrivals import Law, Replay, Window, law_of
from penstock.domain.arrivals import Trace
from penstock.domain.errors import InvalidSettings, InvalidTrace
from penstock.domain.units import Micros, micros_from_seconds
from penstock.options import finite

USUAL_LAW = "poisson"

ArrivalsOption = Annotated[
    str | None,
    typer.Option(
        help="How arrivals are spread: poisson, if there is no trace; constant; "
        "gamma:cv=4 (standard deviation of the gaps by their mean); "
        "mmpp:burst=5,share=0.1,length=2 (rate in bursts by that outside, part of the time in "
        "bursts, mean seconds of a burst); "
        "diurnal:peak=2,period=60 (peak rate by mean rate, seconds from trough to trough)."
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        help="Arrivals from a CSV: ours, or Azure's of LLM inference 2023, Functions 2019 or 2021."
    ),
]
TraceWindowOption = Annotated[
    str | None,
    typer.Option(
        metavar="FROM:TO", help="Part of the trace, in seconds from its start; one may be left out."
    ),
]
RateScaleOption = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        callback=finite,
        help="Offer so many times the trace's requests, over the same time.",
    ),
]


def arrivals_asked(
    *,
    arrivals: str | None,
    trace: Path | None,
    trace_window: str | None,
    rate_scale: float | None,
    duration_us: Micros | None,
    fit: tuple[str, float | None],
) -> Law | Replay:
    """Return the law or the trace that a person's options ask for.

    Args:
        arrivals: a law.
        trace: a file; read here.
        trace_window: which part of it.
        rate_scale: how many times its requests.
        duration_us: ends the window, if it comes first.
        fit: the option that says how much is offered whatever the trace has, and its value.

    Raises:
        InvalidSettings: the options contradict one another, or one is not valid.
        InvalidTrace: the file is not a trace.
        OSError: it cannot be opened.
        UnknownName: there is no such law.
    """
    if trace is None:
        for name, value in (("--trace-window", trace_window), ("--rate-scale", rate_scale)):
            if value is not None:
                raise InvalidSettings(name, "", "--trace with it", "none")
        return law_of(USUAL_LAW if arrivals is None else arrivals)
    if arrivals is not None:
        found = f"--arrivals {arrivals} with --trace"
        raise InvalidSettings("--arrivals", "", "a law or a trace", found)
    if rate_scale is not None and fit[1] is not None:
        raise InvalidSettings("--rate-scale", "", f"either it or {fit[0]}", "both")
    window = window_of(":" if trace_window is None else trace_window).first(duration_us)
    return Replay(trace=read_trace_file(trace), window=window, rate_scale=rate_scale)


def window_of(text: str) -> Window:
    """Return the window that a text such as ``60:120`` describes, in seconds.

    Raises:
        InvalidSettings: it is not one, or holds no time.
    """
    start, colon, end = text.partition(":")
    if not colon:
        raise InvalidSettings("--trace-window", "", "FROM:TO in seconds", repr(text))
    window = Window(_micros("from", start) or 0, _micros("to", end))
    if window.end_us is not None and window.end_us <= window.start_us:
        raise InvalidSettings("--trace-window", "to", "more than from", repr(text))
    return window


def read_trace_file(path: Path) -> Trace:
    """Read a trace in any format that is known.

    Raises:
        InvalidTrace: it is not one; the error says where.
        OSError: it cannot be opened.
    """
    from penstock.formats.traces import read_any_trace

    try:
        return read_any_trace(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise InvalidTrace(str(path), "", "text in UTF-8", "other bytes") from None


def _micros(place: str, text: str) -> Micros | None:
    if not text:
        return None
    try:
        micros = micros_from_seconds(float(text))
    except (ValueError, OverflowError):
        micros = -1
    if micros < 0:
        raise InvalidSettings("--trace-window", place, "seconds, at least 0", repr(text))
    return micros

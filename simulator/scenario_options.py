"""What verbs that simulate ask of a person about all that may go wrong, beside the load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.domain.units import US_PER_SECOND, micros_from_seconds
from penstock.options import finite

if TYPE_CHECKING:
    from simulator.simulate import Scenario

USUAL_SPAN_US = 30 * US_PER_SECOND

DurationOption = Annotated[
    float | None,
    typer.Option(
        min=0.1, callback=finite, help="Seconds of offered load; 30, or as long as the trace."
    ),
]
WarmupOption = Annotated[
    float, typer.Option(min=0.0, callback=finite, help="Seconds at the start not counted.")
]
JitterOption = Annotated[
    float,
    typer.Option(min=0.0, callback=finite, help="Sigma of the log-normal factor on compute times."),
]
StragglerOption = Annotated[
    str | None,
    typer.Option(
        metavar="P:K", help="With probability P a computation takes K times as long: 0.01:4."
    ),
]
ProfileErrorOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ERROR",
        help="Real latencies by profiled ones: 0.1, the sigma of a log-normal factor per pool; "
        "all=1.2; or POOL=1.1. May be repeated.",
    ),
]
WireFactorOption = Annotated[
    float,
    typer.Option(min=0.001, max=1_000, callback=finite, help="Transfers take so many times."),
]
FailOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TARGET@START[+LENGTH]",
        help="An instance, GPU or server fails and comes back: l4-0@10s+5s, l4-0:1@500ms. "
        "May be repeated.",
    ),
]
MtbfOption = Annotated[
    float | None,
    typer.Option(
        min=0.001, callback=finite, help="Mean seconds that a GPU's worker is in operation."
    ),
]
MttrOption = Annotated[
    float | None,
    typer.Option(min=0.001, callback=finite, help="Mean seconds until it is back."),
]
DetectionOption = Annotated[
    float, typer.Option(min=0.0, callback=finite, help="Seconds until a failure is heard of.")
]


def scenario_asked(
    *,
    warmup: float,
    jitter: float,
    straggler: str | None,
    profile_error: Sequence[str] | None,
    wire_factor: float,
    fail: Sequence[str] | None,
    mtbf: float | None,
    mttr: float | None,
    detection: float,
) -> Scenario:
    """Return the scenario that a person's options ask for; policies and seed are the usual ones.

    Raises:
        InvalidSettings: one cannot be read, or is out of range.
    """
    from simulator.disturbances import outage_of, profile_error_of, straggler_of
    from simulator.simulate import Scenario

    return Scenario(
        warmup_us=micros_from_seconds(warmup),
        jitter_sigma=jitter,
        straggler=None if straggler is None else straggler_of(straggler),
        profile_error=profile_error_of(profile_error) if profile_error else None,
        wire_factor=wire_factor,
        fail=tuple(outage_of(each) for each in fail or ()),
        mtbf_us=None if mtbf is None else micros_from_seconds(mtbf),
        mttr_us=None if mttr is None else micros_from_seconds(mttr),
        detection_us=micros_from_seconds(detection),
    )

"""What does serving cost? Rate, latency and processor time of a model that computes nothing.

Serves the identity model through a frontend and one worker process and offers closed loops, unary
and on a stream, by concurrency and payload. The client runs on the same cores and is counted too.
Prints a table to stderr, one JSON line per load and a summary to stdout; draws the rates. Exits
with 1 if a bar is missed.

    python bench/overhead.py
    python bench/overhead.py --payload 1024 --concurrency 1,32 --seconds 5
    python bench/overhead.py --payload 1024 --concurrency 32 --wire grpcio
    python bench/overhead.py --payload 1024 --concurrency 32 --metrics-cost 6
    python bench/overhead.py --payload 1024 --concurrency 32 --soak 600
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.planned import Lines, errors_in_one_line
from bench.serving import Point, Serving, measure, serving, soak
from penstock.domain.errors import InvalidSettings
from penstock.domain.units import Bytes
from penstock.options import finite
from penstock.pictures.bars import Panel, draw_bars

PICTURE, LINES = "overhead.png", "overhead.jsonl"
KIB = 1024

# The bars hold for 1 KiB and 32 callers on two cores, client included.
BAR_PAYLOAD, BAR_CALLERS = KIB, 32
BAR_RPS, BAR_STREAM, BAR_METRICS, BAR_GROWTH = 1_500.0, 2.0, 0.05, 0.02
SOAK_LOAD = 0.8  # of what the closed loop reached
SETTLED = 0.2  # of the samples of a soak, from the start: memory may grow in those


def main(
    *,
    payload: Annotated[str, typer.Option(help="Bytes of a request's tensor, with commas.")] = (
        "1024,153600,614400,4194304"
    ),
    concurrency: Annotated[str, typer.Option(help="Requests under way, with commas.")] = (
        "1,8,32,128"
    ),
    seconds: Annotated[float, typer.Option(min=0.2, callback=finite, help="Of each load.")] = 5.0,
    wire: Annotated[str, typer.Option(help="The frontend's: own or grpcio.")] = "own",
    shapes: Annotated[bool, typer.Option(help="Compute shapes only: without torch.")] = False,
    metrics_cost: Annotated[
        int, typer.Option(min=0, help="Rounds with and without metrics, in turns.")
    ] = 0,
    soak_s: Annotated[
        float, typer.Option("--soak", min=0, callback=finite, help="Seconds at 80 % load.")
    ] = 0.0,
    out_dir: Annotated[Path, typer.Option(help="Where lines and picture go.")] = Path(
        "build/bench"
    ),
) -> None:
    """Measure what a request costs besides its computation."""
    with errors_in_one_line():
        payloads, callers = numbers("--payload", payload, 4), numbers("--concurrency", concurrency)
        lines = Lines(out_dir / LINES)
        points: list[Point] = []
        extra: dict[str, Any] = {}
        tell_row(" payload mode    callers   answers/s  p50 ms  p99 ms  batch  µs/answer")
        for size in payloads:
            with serving(size, real=not shapes, options=("--wire", wire)) as served:
                points += told(measured(served, callers, seconds), lines)
                if soak_s and size == payloads[0]:
                    extra |= soaked(served, soak_s, seconds, lines)
        if metrics_cost:
            extra |= cost_of_metrics(payloads[0], metrics_cost, seconds, real=not shapes)
        total = summary(points, extra)
        lines.tell(total)
        draw(points, out_dir / PICTURE)
    sys.exit(not all(total["bars_met"].values()))


def numbers(option: str, text: str, multiple: int = 1) -> list[int]:
    """Return the numbers that a text such as ``1,8`` lists.

    Raises:
        InvalidSettings: it is not such a text, or one is no multiple above 0.
    """
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        found = []
    if not found or any(each < 1 or each % multiple for each in found):
        expected = f"multiples of {multiple} above 0, with commas"
        raise InvalidSettings(option, "", expected, repr(text))
    return found


def measured(served: Serving, callers: Sequence[int], seconds: float) -> Iterator[Point]:
    """Yield a point for each mode and concurrency."""
    for stream in (False, True):
        for each in callers:
            yield measure(served, each, stream=stream, seconds=seconds)


def told(points: Iterator[Point], lines: Lines) -> Iterator[Point]:
    """Print each point as it comes."""
    for each in points:
        used = "  ".join(f"{name} {us:.0f}" for name, us in each.processor_us.items())
        batch = f"{each.batch:5.1f}" if each.batch is not None else "    –"
        tell_row(
            f"{size_of(each.payload_bytes):>8} {each.mode:7} {each.callers:7} "
            f"{each.measured.rate_rps:11,.0f} {each.measured.quantile_ms(0.5):7.2f} "
            f"{each.measured.quantile_ms(0.99):7.2f}  {batch}  {used}"
        )
        lines.tell(line(each))
        yield each


def tell_row(row: str) -> None:
    """Print a row of the table as it is."""
    sys.stderr.write(row + "\n")
    sys.stderr.flush()


def line(point: Point) -> dict[str, Any]:
    """Return a point as a line says it."""
    return {
        "payload_bytes": point.payload_bytes,
        "mode": point.mode,
        "callers": point.callers,
        "answers": point.measured.answers,
        "rate_rps": round(point.measured.rate_rps, 1),
        "p50_ms": point.measured.quantile_ms(0.5),
        "p99_ms": point.measured.quantile_ms(0.99),
        "processor_us": {name: round(us, 1) for name, us in point.processor_us.items()},
        "batch": point.batch and round(point.batch, 2),
    }


def cost_of_metrics(
    payload_bytes: Bytes, rounds: int, seconds: float, *, real: bool
) -> dict[str, Any]:
    """Return what serving metrics cost, by rounds with and without in turns.

    Throughput on full cores is their time divided by what an answer takes of it, client included.
    That is compared, because other work on the machine changes rates more than metrics do.
    """
    points: dict[bool, list[Point]] = {True: [], False: []}
    with (
        serving(payload_bytes, real=real) as counting,
        serving(payload_bytes, real=real, options=("--no-metrics",)) as quiet,
    ):
        for number in range(2 * rounds):
            counts = number % 4 in (0, 3)
            served = counting if counts else quiet
            points[counts].append(measure(served, BAR_CALLERS, stream=False, seconds=seconds))
    used = {
        counts: statistics.median(sum(each.processor_us.values()) for each in several)
        for counts, several in points.items()
    }
    rates = {
        counts: statistics.median(each.measured.rate_rps for each in several)
        for counts, several in points.items()
    }
    return {
        "metrics_rps": round(rates[True], 1),
        "no_metrics_rps": round(rates[False], 1),
        "metrics_us": round(used[True], 1),
        "no_metrics_us": round(used[False], 1),
        "metrics_cost": round(1 - used[False] / used[True], 4),
    }


def soaked(served: Serving, soak_s: float, seconds: float, lines: Lines) -> dict[str, Any]:
    """Load for long and return how much the memory of each process grew."""
    most = measure(served, BAR_CALLERS, stream=False, seconds=seconds)
    samples: list[Mapping[str, Bytes]] = []

    def sample(resident: Mapping[str, Bytes]) -> None:
        samples.append(resident)
        lines.tell({"soak": True, "sample": len(samples), "resident_bytes": dict(resident)})

    rate_rps = SOAK_LOAD * most.measured.rate_rps
    lost = soak(served, rate_rps, soak_s, sample)
    return {
        "soak_seconds": soak_s,
        "soak_rate_rps": round(rate_rps, 1),
        "soak_unanswered": lost,
        "growth": growth(samples),
    }


def growth(samples: Sequence[Mapping[str, Bytes]]) -> dict[str, float]:
    """Return by which part each process grew, from when it had settled to the end."""
    begin = int(SETTLED * len(samples))
    few = max(1, len(samples) // 20)
    found: dict[str, float] = {}
    for name in samples[-1]:
        before = statistics.median(each[name] for each in samples[begin : begin + few])
        after = statistics.median(each[name] for each in samples[-few:])
        found[name] = round(after / before - 1, 4)
    return found


def summary(points: Sequence[Point], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that have bars, and whether they are met."""
    rates = {
        each.mode: each.measured.rate_rps
        for each in points
        if (each.payload_bytes, each.callers) == (BAR_PAYLOAD, BAR_CALLERS)
    }
    met: dict[str, bool] = {}
    found: dict[str, Any] = {"summary": True, **extra}
    if rates:
        found["unary_c32_rps"] = round(rates["unary"], 1)
        found["stream_over_unary"] = round(rates["stream"] / rates["unary"], 3)
        met["unary_c32_rps"] = rates["unary"] >= BAR_RPS
        met["stream_over_unary"] = rates["stream"] >= BAR_STREAM * rates["unary"]
    if "metrics_cost" in extra:
        met["metrics_cost"] = extra["metrics_cost"] < BAR_METRICS
    if "growth" in extra:
        met["growth"] = max(extra["growth"].values()) < BAR_GROWTH
        met["soak_unanswered"] = extra["soak_unanswered"] == 0
    return {**found, "bars_met": met}


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the rates: a panel for each payload."""
    names = dict.fromkeys(f"{each.mode} {each.callers}" for each in points)
    rates = {
        (each.payload_bytes, f"{each.mode} {each.callers}"): each.measured.rate_rps
        for each in points
    }
    panels = [
        Panel(f"{size_of(size)}, answers/s", {name: rates.get((size, name)) for name in names})
        for size in dict.fromkeys(each.payload_bytes for each in points)
    ]
    draw_bars(
        panels,
        path,
        title="Rates of a model that computes nothing",
        subtitle="Frontend, one worker process and client together; by requests under way",
        standing_out=[name for name in names if name.startswith("stream")],
    )


def size_of(size: Bytes) -> str:
    """Return a size as people say it."""
    for unit, name in ((KIB * KIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


if __name__ == "__main__":
    typer.run(main)

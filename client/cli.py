"""Commands of the client: bench, status, health."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.console import note, progress, show, show_json
from penstock.domain.units import micros_from_ms, micros_from_seconds
from penstock.load_options import (
    USUAL_LAW,
    ArrivalsOption,
    RateScaleOption,
    TraceOption,
    TraceWindowOption,
    arrivals_asked,
)
from penstock.options import drawable, finite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.bench import BenchOptions, BenchResult
    from client.load import OnProgress

JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


def bench(
    address: Annotated[str, typer.Option(help="Server, as host:port.")] = "127.0.0.1:8001",
    model: Annotated[str, typer.Option(help="Model; may be left out if there is one.")] = "",
    rate: Annotated[
        float | None,
        typer.Option(
            callback=finite, help="Requests per second in all; 100, or as the trace has it."
        ),
    ] = None,
    arrivals: ArrivalsOption = None,
    trace: TraceOption = None,
    trace_window: TraceWindowOption = None,
    rate_scale: RateScaleOption = None,
    duration: Annotated[
        float | None, typer.Option(callback=finite, help="Seconds; 10, or as long as the trace.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Rows per request, unless the trace tells.")
    ] = 1,
    connections: Annotated[int, typer.Option(min=1, help="TCP connections.")] = 8,
    deadline_ms: Annotated[
        float,
        typer.Option(min=0.001, callback=finite, help="Give each request up after this time."),
    ] = 10_000.0,
    timeout_ms: Annotated[
        float | None,
        typer.Option(
            min=0.001, callback=finite, help="Tell the server that answers are of use so long."
        ),
    ] = None,
    slo_ms: Annotated[
        float | None,
        typer.Option(
            min=0.001, callback=finite, help="SLO to count by; the trace's or the server's."
        ),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="Rows to send, .npz or .npy; random ones without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the arrivals and of random rows.")] = 0,
    max_requests: Annotated[int, typer.Option(min=1, help="End after so many.")] = 1_000_000,
    plot: Annotated[
        Path | None,
        typer.Option(callback=drawable, help="Draw the latencies: .png, .svg or .html."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write each request's outcome as CSV.")] = None,
    save_trace: Annotated[
        Path | None, typer.Option(help="Write the arrivals, to simulate or repeat them.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Send an open-loop load and count the answers.

    Requests leave at their instants whatever became of those before; latency counts from the
    instant a request was meant to leave.
    """
    from client.bench import BenchOptions, run_bench

    duration_us = None if duration is None else micros_from_seconds(duration)
    options = BenchOptions(
        address=address,
        model=model,
        arrivals=arrivals_asked(
            arrivals=arrivals,
            trace=trace,
            trace_window=trace_window,
            rate_scale=rate_scale,
            duration_us=duration_us,
            fit=("--rate", rate),
        ),
        rate_rps=rate,
        duration_us=duration_us,
        samples=samples,
        connections=connections,
        deadline_us=micros_from_ms(deadline_ms),
        timeout_us=None if timeout_ms is None else micros_from_ms(timeout_ms),
        slo_us=None if slo_ms is None else micros_from_ms(slo_ms),
        inputs=inputs,
        seed=seed,
        max_requests=max_requests,
    )
    with _progress_of(options, quiet=json) as on_progress:
        done = asyncio.run(run_bench(options, on_progress))
    _write_files(done, plot, out, save_trace)
    spread = "trace" if trace is not None else arrivals or USUAL_LAW
    _show_result(options, done, spread, as_json=json)


def status(
    address: Annotated[
        str, typer.Option(help="Metrics address of a frontend, as host:port or URL.")
    ] = "127.0.0.1:8002",
    json: JsonOption = False,
) -> None:
    """Show what a running server serves, and by whom."""
    from client.status import fetch_status, status_tables

    found = fetch_status(address)
    if json:
        show_json(found)
    else:
        show(*status_tables(found))


def health(
    address: Annotated[str, typer.Option(help="Server, as host:port.")] = "127.0.0.1:8001",
    service: Annotated[str, typer.Option(help="One service of it; all without.")] = "",
    timeout_ms: Annotated[
        float, typer.Option(min=0.001, callback=finite, help="Give up after this time.")
    ] = 2_000,
    json: JsonOption = False,
) -> None:
    """Ask a server whether it is ready; exit code 0 if it is, 1 if not."""
    word, why = asyncio.run(_health_of(address, service, micros_from_ms(timeout_ms)))
    if json:
        show_json({"address": address, "service": service, "status": word, "details": why})
    else:
        show(f"{word}: {why}" if why else word)
    if word != "SERVING":
        raise typer.Exit(1)


async def _health_of(address: str, service: str, deadline_us: int) -> tuple[str, str]:
    from client.infer import InferenceClient, RequestFailed

    async with InferenceClient(address) as client:
        try:
            return await client.health(service, deadline_us=deadline_us), ""
        except RequestFailed as failure:
            return failure.status, failure.details


@contextmanager
def _progress_of(options: BenchOptions, *, quiet: bool) -> Iterator[OnProgress]:
    """Show how many requests have ended; the total is known only once the load starts."""
    with progress(quiet=quiet) as bar:
        task = bar.add_task(f"load on {options.address}", total=None)
        yield lambda ended, total: bar.update(task, completed=ended, total=total)


def _write_files(
    done: BenchResult, plot: Path | None, out: Path | None, save_trace: Path | None
) -> None:
    from client.outcomes import write_outcomes
    from penstock.formats.traces import write_trace

    if out is not None:
        out.write_text(write_outcomes(done.result.outcomes), encoding="utf-8")
    if save_trace is not None:
        save_trace.write_text(write_trace(done.settings.arrivals), encoding="utf-8")
    if plot is not None:
        from penstock.pictures.latency import draw_latency

        slos_us = {target.slo_us for target in done.settings.targets.values()}
        title = f"Latency of {_what(done)}"
        draw_latency(done.result.as_outcomes(), min(slos_us), plot, title)


def _show_result(options: BenchOptions, done: BenchResult, arrivals: str, *, as_json: bool) -> None:
    from client.report import report_json, report_of, report_table, warnings_of

    report = report_of(done.result)
    models = sorted(done.settings.targets)
    if as_json:
        asked = {"address": options.address, "models": models, "arrivals": arrivals}
        slos = {name: target.slo_us / 1_000 for name, target in done.settings.targets.items()}
        show_json(
            {
                **report_json(report),
                **asked,
                "slo_ms": slos,
                "seed": options.seed,
                "emulated": done.emulated,
            }
        )
    else:
        show(report_table(report, f"{_what(done)} at {options.address}"))
    for doubt in warnings_of(report):
        note(f"warning: {doubt}")


def _what(done: BenchResult) -> str:
    emulated = " (emulated devices)" if done.emulated else ""
    return ", ".join(sorted(done.settings.targets)) + emulated

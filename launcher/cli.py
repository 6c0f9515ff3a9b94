"""The verb `serve`: a frontend and its workers on this host, in one command."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from penstock.console import note, show_json
from penstock.options import finite


def serve(
    plan: Annotated[Path, typer.Argument(help="The plan to serve.")],
    repository: Annotated[Path, typer.Option(help="Repository that holds the models.")],
    executor: Annotated[
        str, typer.Option(help="How to compute: cpu, cuda, emulated, emulated-shapes.")
    ] = "emulated",
    port: Annotated[int, typer.Option(help="For clients; 0: any free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="For metrics and status page.")] = 8002,
    control_port: Annotated[int, typer.Option(help="For workers; 0: any free one.")] = 0,
    policy: Annotated[
        str, typer.Option(help="Batching policy: a name, or `name:parameter=value`.")
    ] = "reservation",
    logs: Annotated[
        Path | None, typer.Option(help="Folder for one log per process; else a temporary one.")
    ] = None,
    run_log: Annotated[
        Path | None, typer.Option(help="Log all events and effects, for `penstock replay`.")
    ] = None,
    start_limit_s: Annotated[
        float, typer.Option(callback=finite, help="Time for all to become ready.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Report in JSON.")] = False,
) -> None:
    """Serve a plan on this host: a frontend and one worker per GPU that the plan uses.

    Runs until Ctrl-C, SIGTERM or the end of one of its processes; then it stops them all.
    """
    from launcher.local import FleetSettings, LocalFleet, stop_on_signals
    from penstock.formats.plans import read_plan

    the_plan = read_plan(plan.read_text(encoding="utf-8"), str(plan))
    with ExitStack() as stack:
        folder = logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-")))
        settings = FleetSettings(
            plan=plan,
            repository=repository,
            executor=executor,
            logs=folder,
            port=port,
            metrics_port=metrics_port,
            control_port=control_port,
            policy=policy,
            run_log=run_log,
        )
        stop_on_signals()
        fleet = stack.enter_context(LocalFleet(settings, the_plan))
        addresses = fleet.start(start_limit_s)
        if as_json:
            show_json({"inference": addresses.inference, "metrics": addresses.metrics})
        note(
            f"serving on {addresses.inference}, status on http://{addresses.metrics}; Ctrl-C stops"
        )
        fleet.wait()

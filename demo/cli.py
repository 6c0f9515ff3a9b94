"""The verb `demo`: the whole path on this machine, from training to checked answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.console import note, progress, show_json, show_text
from penstock.options import finite

if TYPE_CHECKING:
    from demo.drive import Run
    from demo.prepare import Paths, Prepared
    from demo.report import DemoResult

# What one Python client can offer beside frontend and workers on a small host.
CLIENT_RPS = 400.0
DEVICES = {"emulated": "cluster.yaml", "cuda": "cluster-cuda.yaml"}


def demo(
    device: Annotated[
        str, typer.Option(help="emulated, or cuda: on shares of this machine's GPU.")
    ] = "emulated",
    cluster: Annotated[
        Path | None, typer.Option(help="The fleet, if not the demo's own for the device.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything it writes.")] = Path(
        "build/demo"
    ),
    serve: Annotated[
        bool, typer.Option("--serve", help="Set up, then keep serving until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(help="With --serve: for clients.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option(help="With --serve: for metrics and status page.")
    ] = 8002,
    load: Annotated[
        float,
        typer.Option(min=0.05, max=3.0, callback=finite, help="Offered rate by the planned one."),
    ] = 0.92,
    duration: Annotated[
        float, typer.Option(min=1.0, callback=finite, help="Seconds of load on the plan.")
    ] = 12.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train, cut, plan, serve and check a model on this machine.

    Emulates the fleet in cluster.yaml: answers are computed for real on the CPU, then held until
    the emulated device would have been done. With --device cuda the model is measured on shares of
    this machine's GPU and served from them. Exits with 1 if the plan does not hold what it
    promises.

    Raises:
        PenstockError: the cluster file is wrong, there is no such device, or the fleet did not
            come up.
    """
    from demo.prepare import Paths, prepare
    from launcher.local import stop_on_signals

    stop_on_signals()
    own_cluster = _own_cluster(device)
    paths = Paths(root=out)
    paths.root.mkdir(parents=True, exist_ok=True)
    say = _quiet if as_json else note
    prepared = prepare(cluster or own_cluster, paths, say, emulated=device == "emulated")
    if serve:
        _serve(prepared, paths, port, metrics_port)
        return
    if not as_json:
        _show_plan(prepared)
    result = _drive(prepared, paths, load, duration, say)
    report = _write(result, paths)
    if as_json:
        show_json(report)
    else:
        _tell(result, paths)
    if result.failures():
        raise typer.Exit(1)


def _own_cluster(device: str) -> Path:
    """Return the demo's fleet for a device.

    Raises:
        UnknownName: there is no such device.
        InvalidSettings: this machine has none.
    """
    from penstock.domain.errors import UnknownName
    from profiler.measure import check_device

    if device not in DEVICES:
        raise UnknownName("device", device, DEVICES)
    if device != "emulated":
        check_device(device)
    return Path(__file__).with_name(DEVICES[device])


def _show_plan(prepared: Prepared) -> None:
    from planner.explain import explain

    show_text("\nThe plan\n" + explain(prepared.plan))
    show_text("\nThe best plan without partitioning\n" + explain(prepared.whole_plan) + "\n")


def _drive(
    prepared: Prepared, paths: Paths, load: float, duration: float, say: Callable[[str], None]
) -> DemoResult:
    from demo.drive import Load, drive, fleet_settings
    from demo.prepare import MODEL
    from demo.report import DemoResult, devices_of
    from penstock.domain.units import micros_from_seconds

    emulated = prepared.emulated
    most_rps = inf if emulated else CLIENT_RPS
    planned_rps = min(most_rps, load * prepared.plan.model(MODEL).throughput_rps)
    whole_rps = min(most_rps, load * prepared.whole_plan.model(MODEL).throughput_rps)
    full_us, half_us = micros_from_seconds(duration), micros_from_seconds(duration / 2)
    say(f"Serving the plan on {devices_of(prepared)}: a frontend and one worker per GPU")
    with _told("partitioned", say) as on_progress:
        (partitioned,) = drive(
            prepared,
            prepared.plan,
            fleet_settings(paths.plan, paths, "partitioned", emulated=emulated),
            [Load(rate_rps=planned_rps, duration_us=full_us)],
            on_progress,
        )
    say("Serving the same fleet without partitioning")
    with _told("no partition", say) as on_progress:
        whole, overloaded = drive(
            prepared,
            prepared.whole_plan,
            fleet_settings(paths.whole_plan, paths, "no-partition", emulated=emulated),
            [
                Load(rate_rps=whole_rps, duration_us=half_us),
                Load(rate_rps=planned_rps, duration_us=half_us),
            ],
            on_progress,
        )
    return DemoResult(
        prepared=prepared, partitioned=partitioned, whole=whole, whole_overloaded=overloaded
    )


@contextmanager
def _told(name: str, say: Callable[[str], None]) -> Iterator[Callable[[int, int], None]]:
    with progress(quiet=say is _quiet) as bar:
        task = bar.add_task(f"{name}: requests", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield on_progress


def _write(result: DemoResult, paths: Paths) -> dict[str, object]:
    """Write report and pictures; return the report."""
    from demo.history import intervals_of
    from demo.report import devices_of, report_of
    from penstock.formats.runlog import read_run_log
    from penstock.pictures.latency import draw_latency
    from penstock.pictures.poolmap import draw_pool_map
    from penstock.pictures.timeline import draw_timeline

    report = report_of(result)
    text = json.dumps(report, indent=2) + "\n"
    (paths.root / "report.json").write_text(text, encoding="utf-8")
    draw_pool_map(result.prepared.plan, paths.root / "pool-map.png")
    log = paths.root / "run-partitioned.jsonl"
    with log.open(encoding="utf-8") as lines:
        intervals = intervals_of(
            (each.now_us, each.event, each.effects) for each in read_run_log(lines, str(log))
        )
    title = f"Timeline of the live run ({devices_of(result.prepared)})"
    draw_timeline(intervals, paths.root / "timeline.png", title=title)
    run: Run = result.partitioned
    slo_us = result.prepared.plan.models[0].slo_us
    draw_latency(run.outcomes, slo_us, paths.root / "latency.png")
    return report


def _tell(result: DemoResult, paths: Paths) -> None:
    from demo.report import words_of

    show_text(words_of(result))
    show_text(
        f"\nPictures and report: {paths.root}/pool-map.png, timeline.png, latency.png, report.json"
    )
    for shortfall in result.failures():
        note(f"short of the promise: {shortfall}")


def _serve(prepared: Prepared, paths: Paths, port: int, metrics_port: int) -> None:
    from dataclasses import replace

    from demo.digits import IMAGES
    from demo.drive import START_LIMIT_S, fleet_settings
    from demo.report import devices_of
    from launcher.local import LocalFleet

    settings = replace(
        fleet_settings(paths.plan, paths, "serve", emulated=prepared.emulated),
        port=port,
        metrics_port=metrics_port,
    )
    with LocalFleet(settings, prepared.plan) as fleet:
        addresses = fleet.start(START_LIMIT_S)
        note(
            f"Serving model 'digits' (input '{IMAGES}': FP32 [-1, 1, 8, 8]) on "
            f"{addresses.inference}, status on http://{addresses.metrics}; "
            f"{devices_of(prepared)}. "
            "Ctrl-C stops."
        )
        fleet.wait()


def _quiet(message: str) -> None:
    """Say nothing."""

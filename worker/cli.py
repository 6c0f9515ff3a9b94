"""The command line of a worker: options, settings, signals."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer


def worker(
    frontend: Annotated[
        str, typer.Option(envvar="PENSTOCK_FRONTEND", help="Control service, as host:port.")
    ],
    gpu_class: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_GPU_CLASS",
            help="GPU class, as the plan names it; with cuda recognised if left out.",
        ),
    ] = "",
    executor: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_EXECUTOR", help="How to compute: cpu, cuda, emulated, emulated-shapes."
        ),
    ] = "cpu",
    repository: Annotated[
        Path, typer.Option(envvar="PENSTOCK_REPOSITORY", help="Model repository.")
    ] = Path(),
    worker_id: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_WORKER_ID",
            help="Name of this worker, unique in the fleet; made up if left out.",
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_DEVICE", help="The GPU: its index in nvidia-smi, or its UUID."
        ),
    ] = "0",
    server: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_SERVER",
            help="Name of the host whose network card this worker uses; its hostname if left out.",
        ),
    ] = "",
    host: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_HOST", help="Address that frontend and other workers reach us by."
        ),
    ] = "127.0.0.1",
    threads: Annotated[
        int, typer.Option(envvar="PENSTOCK_THREADS", help="Processor threads per instance.")
    ] = 1,
    share: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_SHARE",
            help="How instances share the GPU: auto, green, mps, none. auto: the first that works.",
        ),
    ] = "auto",
    process_per: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_PROCESS_PER",
            help="A process per instance (a crash ends one), or one per device (it ends all).",
        ),
    ] = "instance",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="PENSTOCK_WORKER_METRICS_PORT",
            help="Offer metrics of device and instances there; 0: any free port.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the log as JSON lines on stderr.")
    ] = False,
) -> None:
    """Run a worker: offer one device of this host to a frontend until told to stop.

    Raises:
        PenstockError: a setting is wrong, or the frontend refuses this worker.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # before anything imports grpc
    from worker.journal import start_log
    from worker.run import serve
    from worker.settings import worker_settings

    settings = worker_settings(
        frontend=frontend,
        gpu_class=gpu_class,
        executor=executor,
        repository=repository,
        worker_id=worker_id,
        device=device,
        server=server,
        host=host,
        threads=threads,
        share=share,
        process_per=process_per,
        metrics_port=metrics_port,
    )
    start_log(as_json=as_json)
    asyncio.run(serve(settings))

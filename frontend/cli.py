"""The verb `frontend`: reads arguments, files and signals, and runs one frontend.

The composition root of this room; only here are paths opened and policies named.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontend.settings import LOOPBACK, OWN_WIRE, Settings
from penstock.console import note, show_text

if TYPE_CHECKING:
    from frontend.backend import BackendFactory
    from frontend.server import Addresses

_NOT_FINISHED = 1


def frontend(
    plan: Annotated[Path, typer.Option(envvar="PENSTOCK_PLAN", help="Plan to serve.")],
    repository: Annotated[
        Path, typer.Option(envvar="PENSTOCK_REPOSITORY", help="Repository that holds the models.")
    ],
    host: Annotated[
        str,
        typer.Option(envvar="PENSTOCK_HOST", help="Address to listen on; there is no login."),
    ] = LOOPBACK,
    port: Annotated[
        int, typer.Option(envvar="PENSTOCK_PORT", help="For clients; 0: any free one.")
    ] = 8001,
    metrics_port: Annotated[
        int, typer.Option(envvar="PENSTOCK_METRICS_PORT", help="For metrics and status page.")
    ] = 8002,
    control_port: Annotated[
        int, typer.Option(envvar="PENSTOCK_CONTROL_PORT", help="For workers.")
    ] = 8003,
    acceptors: Annotated[
        int,
        typer.Option(
            envvar="PENSTOCK_ACCEPTORS",
            help="Processes that take requests; 0: this one does. Pays off from about 8 cores.",
        ),
    ] = 0,
    advertise: Annotated[
        str, typer.Option(envvar="PENSTOCK_ADVERTISE", help="Host name workers are told.")
    ] = "",
    policy: Annotated[
        str, typer.Option(envvar="PENSTOCK_POLICY", help="Batching policy.")
    ] = "reservation",
    routing: Annotated[
        str, typer.Option(envvar="PENSTOCK_ROUTING", help="Routing policy.")
    ] = "least-queueing",
    queue_samples: Annotated[
        int, typer.Option(envvar="PENSTOCK_QUEUE_SAMPLES", help="Samples per model that may wait.")
    ] = 4096,
    stream_requests: Annotated[
        int,
        typer.Option(envvar="PENSTOCK_STREAM_REQUESTS", help="Requests under way per stream."),
    ] = 64,
    shared_memory_regions: Annotated[
        int | None,
        typer.Option(
            envvar="PENSTOCK_SHARED_MEMORY_REGIONS",
            help="Of clients on this host, at most; 0: none. 64 on loopback, else none.",
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option(envvar="PENSTOCK_METRICS", help="Count for Prometheus.")
    ] = True,
    max_message_mib: Annotated[
        int, typer.Option(envvar="PENSTOCK_MAX_MESSAGE_MIB", help="Largest request or answer.")
    ] = 64,
    drain_pause_s: Annotated[
        float,
        typer.Option(
            envvar="PENSTOCK_DRAIN_PAUSE_S",
            help="Between 'not serving' and refusing; 5 behind a load balancer.",
        ),
    ] = 0.5,
    drain_limit_s: Annotated[
        float,
        typer.Option(envvar="PENSTOCK_DRAIN_LIMIT_S", help="For accepted requests to finish."),
    ] = 20.0,
    reflection: Annotated[
        bool, typer.Option(envvar="PENSTOCK_REFLECTION", help="Let clients list the services.")
    ] = True,
    wire: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_WIRE",
            help="Who speaks HTTP/2 to clients: own; or grpcio, which is slower.",
        ),
    ] = OWN_WIRE,
    uvloop: Annotated[
        bool, typer.Option(envvar="PENSTOCK_UVLOOP", help="Use uvloop where it is installed.")
    ] = True,
    run_log: Annotated[
        Path | None,
        typer.Option(
            envvar="PENSTOCK_RUN_LOG", help="Log all events and effects, for `penstock replay`."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Report in JSON lines.")] = False,
) -> None:
    """Run the frontend that clients talk to.

    Serves a plan over the Open Inference Protocol; workers attach to its control port. SIGTERM
    and Ctrl-C drain it: what was accepted is finished, then it exits with 0. A second signal stops
    it at once; requests left unanswered make the exit code 1.

    Raises:
        PenstockError: the plan cannot be served here.
    """
    from frontend.workers import workers_backend

    settings = Settings(
        plan=plan,
        repository=repository,
        host=host,
        port=port,
        metrics_port=metrics_port,
        control_port=control_port,
        acceptors=acceptors,
        advertise=advertise,
        policy=policy,
        routing=routing,
        queue_samples=queue_samples,
        stream_requests=stream_requests,
        shared_memory_regions=shared_memory_regions,
        metrics=metrics,
        max_message_mib=max_message_mib,
        drain_pause_s=drain_pause_s,
        drain_limit_s=drain_limit_s,
        reflection=reflection,
        wire=wire,
        uvloop=uvloop,
        run_log=run_log,
    )
    run(settings, workers_backend, Reporter(json))


class Reporter:
    """Says what happens: lines for a person, or one JSON object per line."""

    def __init__(self, json: bool) -> None:
        self._json = json

    def settings(self, settings: Settings, loop: str) -> None:
        """Print every setting, and which event loop runs."""
        facts = {**settings.facts(), "loop": loop}
        words = " ".join(f"{name}={value}" for name, value in facts.items() if value)
        self._say("settings", facts, f"settings: {words}")

    def listening(self, addresses: Addresses) -> None:
        """Print where the doors are."""
        facts = {
            "inference": addresses.inference,
            "metrics": addresses.metrics,
            "control": addresses.control,
        }
        words = f"requests on {addresses.inference}, status on http://{addresses.metrics}"
        if addresses.control:
            words += f", workers on {addresses.control}"
        self._say("listening", facts, words)

    def readiness(self, ready: bool) -> None:
        """Print that models became ready or ceased to be."""
        words = "ready: every model can be served" if ready else "not ready: a model lost its route"
        self._say("ready" if ready else "unready", {}, words)

    def draining(self) -> None:
        """Print that no more is accepted."""
        self._say("draining", {}, "draining; a second signal stops at once")

    def run_log_ended(self, reason: str) -> None:
        """Print why the run log is not of the whole run."""
        self._say("run-log-ended", {"reason": reason}, f"the run log ends here: {reason}")

    def stopped(self, unanswered: int) -> None:
        """Print how it ended."""
        words = f"stopped with {unanswered} requests unanswered" if unanswered else "stopped"
        self._say("stopped", {"unanswered": str(unanswered)}, words)

    def _say(self, event: str, facts: dict[str, str], words: str) -> None:
        if self._json:
            from json import dumps

            show_text(dumps({"event": event, **facts}))
        else:
            note(words)


def run(settings: Settings, connect: BackendFactory, reporter: Reporter) -> None:
    """Run a frontend until it is told to stop.

    Raises:
        PenstockError: the plan cannot be served here.
        SystemExit: requests were left unanswered.
    """
    import asyncio

    from frontend.process import serve
    from penstock.aio.loops import new_loop, usual_loop

    loop = usual_loop(uvloop=settings.uvloop)
    reporter.settings(settings, loop)
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        unanswered = runner.run(serve(settings, connect, reporter))
    if unanswered:
        sys.exit(_NOT_FINISHED)

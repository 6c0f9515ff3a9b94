"""How fast is the serving layer beside other servers'?

The same identity model (1 KiB in, the same out) and the same small CNN on Penstock, MLServer,
Triton's Python backend, Ray Serve, LitServe and mosec: each in a pinned environment of its own
(installed on the first run), all on this host, one at work at a time, asked by the same client in
alternating rounds. Prints a table to stderr, one JSON line per server and model and a summary
line to stdout, and draws a picture. Exits with 1 if a bar is missed; a server that cannot be had
here has no figures and misses none.

    python bench/peers.py --servers penstock,mlserver,triton --seconds 2
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.planned import Lines, errors_in_one_line
from bench.servers.definition import Server
from bench.servers.measuring import interpreters, measure
from bench.servers.outcomes import Effort, Outcome
from bench.servers.programs.models import IDENTITY, SHAPES
from bench.servers.report import line, summary, table
from bench.servers.running import adopt_orphans
from bench.servers.table import SERVERS
from launcher.local import stop_on_signals
from penstock.aio.loops import new_loop, usual_loop
from penstock.console import note
from penstock.options import finite
from penstock.pictures.bars import Panel, draw_bars

_INTERRUPTED = 130


def chosen(text: str, known: Mapping[str, object], what: str) -> tuple[str, ...]:
    """Return the names that a text lists with commas, each once, in its order.

    Raises:
        BadParameter: one is not known.
    """
    names = tuple(dict.fromkeys(each.strip() for each in text.split(",")))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return names


def servers_of(text: str) -> str:
    """Refuse servers that are not known."""
    chosen(text, SERVERS, "server")
    return text


def models_of(text: str) -> str:
    """Refuse models that are not known."""
    chosen(text, SHAPES, "model")
    return text


def main(
    *,
    servers: Annotated[
        str, typer.Option(callback=servers_of, help="Names with commas.")
    ] = ",".join(SERVERS),
    models: Annotated[str, typer.Option(callback=models_of, help="Names with commas.")] = ",".join(
        SHAPES
    ),
    seconds: Annotated[
        float, typer.Option(min=0.1, callback=finite, help="Of each load in each round.")
    ] = 2.0,
    warm_up: Annotated[
        float, typer.Option(min=0, callback=finite, help="Seconds of each load not counted.")
    ] = 0.5,
    rounds: Annotated[int, typer.Option(min=1, help="Figures are medians over rounds.")] = 3,
    environments: Annotated[
        Path, typer.Option(help="Folder for the servers' environments.")
    ] = Path(".bench"),
    out_dir: Annotated[Path, typer.Option(help="For lines, picture and logs.")] = Path(
        "build/bench"
    ),
) -> None:
    """Measure servers side by side."""
    stop_on_signals()
    wanted = [SERVERS[name] for name in chosen(servers, SERVERS, "server")]
    effort = Effort(seconds=seconds, rounds=rounds, warm_up_s=warm_up)
    with errors_in_one_line():
        adopt_orphans()
        try:
            outcomes = measured(
                wanted, chosen(models, SHAPES, "model"), effort, environments, out_dir / "logs"
            )
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(_INTERRUPTED)
        sys.exit(report(outcomes, effort, out_dir))


def measured(
    servers: Sequence[Server],
    models: Sequence[str],
    effort: Effort,
    environments: Path,
    logs: Path,
) -> list[Outcome]:
    """Install what is missing, then measure one model after the other."""
    pythons = interpreters(servers, environments.absolute(), Path(sys.executable), note)
    outcomes: list[Outcome] = []
    for model in models:
        with asyncio.Runner(loop_factory=lambda: new_loop(usual_loop())) as runner:
            work = measure(model, servers, pythons, effort, logs.absolute(), note)
            outcomes += runner.run(ended_by_signals(work))
    return outcomes


async def ended_by_signals(work: Coroutine[Any, Any, list[Outcome]]) -> list[Outcome]:
    """Do some work; SIGINT and SIGTERM cancel it, so that it is unwound in order.

    Raises:
        CancelledError: there was such a signal.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def report(outcomes: Sequence[Outcome], effort: Effort, out_dir: Path) -> bool:
    """Print table, lines and summary, draw the picture; return whether a bar was missed."""
    told = Lines(out_dir / "peers.jsonl")
    for each in outcomes:
        told.tell(line(each))
    sys.stderr.write(table(outcomes) + "\n")
    total: dict[str, Any] = {
        **summary(outcomes),
        "seconds": effort.seconds,
        "rounds": effort.rounds,
        "cores": os.cpu_count(),
        "loop": usual_loop(),
    }
    for model in dict.fromkeys(each.model for each in outcomes):
        draw_bars(
            panels(total["servers"], model),
            out_dir / f"peers-{model}.png",
            title=f"Serving layers beside each other: {model}",
            subtitle=f"Client and server share {total['cores']} cores",
            standing_out=("penstock",),
        )
    told.tell(total)
    return False in total["within_bars"].values()


def panels(servers: Mapping[str, Mapping[str, Any]], model: str) -> list[Panel]:
    """Return what the picture of a model shows of a summary's servers."""

    def of(figure: str) -> dict[str, float | None]:
        return {
            name: (each if model == IDENTITY else each[model])[figure]
            for name, each in servers.items()
        }

    return [
        Panel("requests/s, 32 at once", of("unary_c32_rps")),
        Panel("requests/s, one stream, 32 at once", of("stream_c32_rps")),
        Panel("median latency in ms, one at a time", of("unary_c1_p50_ms")),
    ]


if __name__ == "__main__":
    typer.run(main)

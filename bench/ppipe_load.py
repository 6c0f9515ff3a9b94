"""How much load do plans really carry? Ours and the published ones, simulated side by side.

Reads a plan set in the layout of the PPipe artifact and offers load to each model of each
configuration, in steps of a part of what PPipe's plan (``v4``) promises it, from high to low, until
the target attainment is met: the *load factor*. A configuration sustains the least, over its
models, of load factor · promised rate / weight. The yardstick is PPipe's plan under PPipe's rule,
simulated here with the same arrivals. PPipe's study offers no plan more than it promises; ours may
carry more than that, so ``ratio_to_beyond`` compares with a yardstick that is offered more, too.

Prints one JSON line per configuration and a summary line to stdout, a table to stderr, and draws
``ppipe_load.png``. With ``--reference`` it also compares load factors with a table of them. Exits
with 1 if the summary misses a bar that was asked for. See docs/bench.md.

    python bench/ppipe_load.py --data PPipe/data --set maf19 --planner published --policy published
    python bench/ppipe_load.py --data PPipe/data --set maf19 --planner penstock
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.carried import Asked, Planner, measured
from bench.carried_plans import Cards
from bench.carried_report import draw, read_reference, report
from bench.planned import Lines, errors_in_one_line
from penstock.arrivals import law_of
from penstock.console import note
from penstock.domain.errors import InvalidSettings
from penstock.domain.units import micros_from_seconds
from penstock.options import finite
from planner.published import Scheduler, configurations
from simulator.simulate import Scenario
from simulator.sustain import Trials

PICTURE = "ppipe_load.png"


def main(
    *,
    data: Annotated[Path, typer.Option(help="The artifact's data folder, or a clone of it.")],
    plan_set: Annotated[str, typer.Option("--set", help="Plan set, such as maf19.")],
    planner: Annotated[Planner, typer.Option(help="Whose plans.")] = Planner.PUBLISHED,
    scheduler: Annotated[
        Scheduler, typer.Option(help="Which published scheduler's plans.")
    ] = Scheduler.PPIPE,
    policy: Annotated[str, typer.Option(help="Batching policy.")] = "reservation",
    routing: Annotated[str, typer.Option(help="Routing policy.")] = "least-queueing",
    arrivals: Annotated[str, typer.Option(help="Arrival law.")] = "poisson",
    jitter: Annotated[
        float, typer.Option(min=0, callback=finite, help="Sigma of the factor on compute times.")
    ] = 0.0,
    duration: Annotated[
        float, typer.Option(min=1, callback=finite, help="Simulated seconds per trial.")
    ] = 30.0,
    step: Annotated[
        float, typer.Option(min=0.001, max=1, callback=finite, help="Between loads.")
    ] = 0.05,
    target: Annotated[
        float, typer.Option(min=0.01, max=1, callback=finite, help="Attainment to be met.")
    ] = 0.99,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals and jitter.")] = 0,
    only: Annotated[
        str, typer.Option(help="Configurations: part of their names; nothing: all.")
    ] = "",
    reference: Annotated[
        Path | None, typer.Option(help="CSV of load factors to compare with.")
    ] = None,
    cards: Annotated[
        Cards,
        typer.Option(help="Network cards: of each GPU, as PPipe's simulator has it, or server."),
    ] = Cards.GPU,
    stages: Annotated[
        int | None, typer.Option(min=1, help="Of our plans, at most; else as published.")
    ] = None,
    plan_seconds: Annotated[
        float, typer.Option(min=1, callback=finite, help="For each of our plans.")
    ] = 60.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    out_dir: Annotated[Path, typer.Option(help="Where lines and picture go.")] = Path(
        "build/bench"
    ),
) -> None:
    """Load published configurations until their requests come too late."""
    with errors_in_one_line():
        scenario = Scenario(batching=policy, routing=routing, jitter_sigma=jitter, seed=seed)
        scenario.check()
        asked = Asked(
            planner=planner,
            scheduler=scheduler,
            trials=Trials(
                law=law_of(arrivals),
                span_us=micros_from_seconds(duration),
                target=target,
                scenario=scenario,
            ),
            step=step,
            cards=cards,
            stages=stages,
            plan_seconds=plan_seconds,
            jobs=jobs,
        )
        known = {} if reference is None else read_reference(reference)
        found = [each for each in configurations(data, plan_set) if only in each.name]
        if not found:
            raise InvalidSettings("--only", "", "part of a configuration's name", repr(only))
        lines = Lines(out_dir / "ppipe_load.jsonl")
        told = list(report(measured(found, asked), lines, known, asked))
        draw(told, out_dir / PICTURE, asked)
        note(f"wrote {out_dir / PICTURE}")


if __name__ == "__main__":
    typer.run(main)

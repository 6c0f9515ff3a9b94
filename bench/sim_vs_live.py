"""Does the simulator say what the live fleet does? The same plan, the same arrivals, both ways.

Serves a plan on emulated devices, offers Poisson arrivals at several loads, and simulates each
arrival for arrival. Prints a table, then one JSON line per load and a summary line. Exits with 1
if an attainment differs by more than the bar.

    python bench/sim_vs_live.py build/demo/plan.json --repository build/demo/models
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from client.infer import InferenceClient
from client.inputs import random_inputs, read_inputs
from client.load import LoadSettings, Target, run_load
from launcher.local import FleetSettings, LocalFleet
from penstock.arrivals import Poisson
from penstock.console import show_text
from penstock.domain.arrivals import Arrival
from penstock.domain.outcomes import Summary, summarise
from penstock.domain.plan import Plan
from penstock.domain.units import micros_from_seconds
from penstock.formats.plans import read_plan
from penstock.options import finite
from simulator.simulate import Scenario, planned_load, simulate_plan

BAR = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load, both ways."""

    load: float
    seed: int
    requests: int
    live_attainment: float
    simulated_attainment: float
    live_p50_ms: float | None
    simulated_p50_ms: float | None
    live_p99_ms: float | None
    simulated_p99_ms: float | None

    @property
    def difference(self) -> float:
        """Live minus simulated attainment."""
        return self.live_attainment - self.simulated_attainment


def main(
    plan_file: Annotated[Path, typer.Argument(help="A plan for one model.")],
    repository: Annotated[Path, typer.Option(help="Its model repository.")],
    loads: Annotated[str, typer.Option(help="Offered by planned rate, with commas.")] = (
        "0.5,0.8,0.95"
    ),
    seconds: Annotated[float, typer.Option(callback=finite, help="Length of each load.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 1,
    inputs: Annotated[Path | None, typer.Option(help=".npz of rows to send.")] = None,
    executor: Annotated[str, typer.Option(help="Executor of the workers.")] = "emulated",
) -> None:
    """Compare live and simulated attainment."""
    plan = read_plan(plan_file.read_text(encoding="utf-8"), str(plan_file))
    with tempfile.TemporaryDirectory() as logs:
        settings = FleetSettings(
            plan=plan_file, repository=repository, executor=executor, logs=Path(logs)
        )
        with LocalFleet(settings, plan) as fleet:
            address = fleet.start(120.0).inference
            points = [
                measure(plan, address, float(load), seconds, seed, inputs)
                for load in loads.split(",")
            ]
    report(points)


def measure(
    plan: Plan, address: str, load: float, seconds: float, seed: int, inputs: Path | None
) -> Point:
    """Offer one load live and to the simulator."""
    span_us = micros_from_seconds(seconds)
    arrivals = planned_load(plan, load, span_us, Poisson(), seed)
    live = asyncio.run(offer(plan, address, arrivals, span_us, inputs))
    simulated = simulate_plan(plan, arrivals, span_us, Scenario()).summary()
    return Point(
        load=load,
        seed=seed,
        requests=len(arrivals),
        live_attainment=live.attainment,
        simulated_attainment=simulated.attainment,
        live_p50_ms=live.p50_ms,
        simulated_p50_ms=simulated.p50_ms,
        live_p99_ms=live.p99_ms,
        simulated_p99_ms=simulated.p99_ms,
    )


async def offer(
    plan: Plan, address: str, arrivals: list[Arrival], span_us: int, inputs: Path | None
) -> Summary:
    """Send the arrivals and count what became of them."""
    (model,) = plan.models
    async with InferenceClient(address) as client:
        specs = (await client.facts(model.model, deadline_us=10_000_000)).inputs
    rows = read_inputs(inputs, specs) if inputs else random_inputs(specs, 0)
    settings = LoadSettings(
        address=address,
        arrivals=tuple(arrivals),
        targets={model.model: Target(inputs=rows, slo_us=model.slo_us)},
        duration_us=span_us,
    )
    return summarise((await run_load(settings)).as_outcomes(), span_us)


def report(points: list[Point]) -> None:
    """Print table, lines and summary; exit with 1 where the bar is missed."""
    show_text(
        "load   requests   attainment live / simulated   p50 ms live / sim   p99 ms live / sim"
    )
    for each in points:
        show_text(
            f"{each.load:4.2f}   {each.requests:8d}   {each.live_attainment:15.2%} / "
            f"{each.simulated_attainment:9.2%}   {each.live_p50_ms or 0:11.1f} / "
            f"{each.simulated_p50_ms or 0:5.1f}   {each.live_p99_ms or 0:11.1f} / "
            f"{each.simulated_p99_ms or 0:5.1f}"
        )
    for each in points:
        show_text(json.dumps(asdict(each)))
    worst = max(abs(each.difference) for each in points)
    show_text(json.dumps({"summary": True, "largest_difference": worst, "bar": BAR}))
    sys.exit(worst > BAR)


if __name__ == "__main__":
    typer.run(main)

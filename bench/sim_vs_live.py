"""Does the simulator say what the live fleet does? The same plan, the same arrivals, both ways.

Serves a plan on emulated devices, offers Poisson arrivals at several loads under several seeds, and
simulates each arrival for arrival. Prints a table, then one JSON line per load and seed and a
summary line. Exits with 1 if a bar is missed: attainment at loads up to 1 within one point, p50 and
p99 within 10 %.

    python bench/sim_vs_live.py build/demo/plan.json --repository build/demo/models
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.planned import errors_in_one_line
from client.infer import InferenceClient
from client.inputs import random_inputs, read_inputs
from client.load import LoadSettings, Target, run_load
from launcher.local import FleetSettings, LocalFleet
from penstock.arrivals import Poisson
from penstock.console import show_text
from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidSettings
from penstock.domain.outcomes import Summary, summarise
from penstock.domain.plan import Plan
from penstock.domain.units import micros_from_seconds
from penstock.formats.plans import read_plan
from penstock.options import finite
from simulator.simulate import Scenario, planned_load, simulate_plan
from simulator.sweeps.asked import loads_of

BAR = 0.01  # of attainment, at loads up to 1
LATENCY_BAR = 0.1  # of a latency quantile, relative to the live one


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

    @property
    def latency_differences(self) -> tuple[float, ...]:
        """Simulated over live p50 and p99, less 1; none of a run without answers."""
        pairs = (
            (self.live_p50_ms, self.simulated_p50_ms),
            (self.live_p99_ms, self.simulated_p99_ms),
        )
        return tuple(
            simulated / live - 1
            for live, simulated in pairs
            if live is not None and simulated is not None
        )

    @property
    def within_bars(self) -> bool:
        """Whether attainment (up to load 1) and latencies are as close as is asked."""
        close = self.load > 1 or abs(self.difference) <= BAR
        return close and all(abs(each) <= LATENCY_BAR for each in self.latency_differences)


def main(
    plan_file: Annotated[Path, typer.Argument(help="A plan for one model.")],
    repository: Annotated[Path, typer.Option(help="Its model repository.")],
    loads: Annotated[str, typer.Option(help="Offered by planned rate, with commas.")] = (
        "0.5,0.8,0.95,1.1"
    ),
    seconds: Annotated[float, typer.Option(callback=finite, help="Length of each load.")] = 15.0,
    seeds: Annotated[str, typer.Option(help="Seeds of the arrivals, with commas.")] = "1,2,3,4,5",
    inputs: Annotated[Path | None, typer.Option(help=".npz of rows to send.")] = None,
    executor: Annotated[str, typer.Option(help="Executor of the workers.")] = "emulated",
) -> None:
    """Compare live and simulated attainment."""
    with errors_in_one_line():
        plan = read_plan(plan_file.read_text(encoding="utf-8"), str(plan_file))
        offered = loads_of(loads)
        seeded = seeds_of(seeds)
    with tempfile.TemporaryDirectory() as logs:
        settings = FleetSettings(
            plan=plan_file, repository=repository, executor=executor, logs=Path(logs)
        )
        with LocalFleet(settings, plan) as fleet:
            address = fleet.start(120.0).inference
            points = [
                measure(plan, address, load, seconds, seed, inputs)
                for load in offered
                for seed in seeded
            ]
    report(points)


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds that a text such as ``1,2,3`` lists.

    Raises:
        InvalidSettings: it is not such a text.
    """
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise InvalidSettings(
            "--seeds", "", "whole numbers with commas, 1,2,3", repr(text)
        ) from None


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
    """Print table, lines and summary; exit with 1 where a bar is missed."""
    show_text(
        "load  seed  requests  attainment live / simulated  p50 ms live / sim  p99 ms live / sim"
    )
    for each in points:
        show_text(
            f"{each.load:4.2f}  {each.seed:4d}  {each.requests:8d}  {each.live_attainment:15.2%} / "
            f"{each.simulated_attainment:9.2%}  {each.live_p50_ms or 0:10.1f} / "
            f"{each.simulated_p50_ms or 0:5.1f}  {each.live_p99_ms or 0:10.1f} / "
            f"{each.simulated_p99_ms or 0:5.1f}{'' if each.within_bars else '  *'}"
        )
    for each in points:
        show_text(json.dumps({**asdict(each), "within_bars": each.within_bars}))
    show_text(json.dumps(summary(points)))
    sys.exit(not all(each.within_bars for each in points))


def summary(points: list[Point]) -> dict[str, object]:
    """Return the largest differences, and how many runs kept to the bars."""
    sustainable = [abs(each.difference) for each in points if each.load <= 1]
    latencies = [abs(ratio) for each in points for ratio in each.latency_differences]
    return {
        "summary": True,
        "runs": len(points),
        "within_bars": sum(each.within_bars for each in points),
        "largest_difference": max(sustainable, default=0.0),
        "median_difference": statistics.median(sustainable) if sustainable else 0.0,
        "bar": BAR,
        "largest_latency_difference": max(latencies, default=0.0),
        "median_latency_difference": statistics.median(latencies) if latencies else 0.0,
        "latency_bar": LATENCY_BAR,
    }


if __name__ == "__main__":
    typer.run(main)

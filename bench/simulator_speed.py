"""How fast is the simulator, and what does it cost to simulate a larger fleet?

Offers a plan load in simulated time and counts simulated requests per second of wall time: once as
it is, and once with ten times the instances and ten times the load. Arrivals, scheduling, simulated
fleet and summary all count. With ``--requests`` one more run has that many requests, in a process
of its own whose peak memory is reported.

Prints a table to stderr, one JSON line per fleet and a summary line to stdout. See docs/bench.md.

    python bench/simulator_speed.py build/demo/plan.json
    python bench/simulator_speed.py --data PPipe/data --set maf19
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from bench.planned import Lines, errors_in_one_line
from penstock.arrivals import Poisson
from penstock.console import note
from penstock.domain.errors import InvalidSettings
from penstock.domain.plan import ModelPlan, Plan
from penstock.domain.units import micros_from_seconds
from penstock.formats.plans import read_plan
from penstock.options import finite
from planner.published import Scheduler, configuration_names, data_folder
from planner.published.configurations import read_configuration
from planner.published.plans import plan_of
from simulator.simulate import Scenario, planned_load, simulate_plan

WIDER = 10  # times as many instances, and as much load
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One simulation to be timed."""

    plan: Plan
    load: float
    requests: int
    scenario: Scenario

    def timed(self) -> Timing:
        """Run it."""
        rate = sum(model.throughput_rps for model in self.plan.models)
        span_us = micros_from_seconds(self.requests / (self.load * rate))
        began = time.perf_counter()
        arrivals = planned_load(self.plan, self.load, span_us, Poisson(), self.scenario.seed)
        summary = simulate_plan(self.plan, arrivals, span_us, self.scenario).summary()
        return Timing(
            requests=summary.requests,
            seconds=time.perf_counter() - began,
            attainment=summary.attainment,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one simulation took.

    Attributes:
        peak_bytes: of the process, up to the end of the run.
    """

    requests: int
    seconds: float
    attainment: float
    peak_bytes: int

    @property
    def speed_rps(self) -> float:
        """Simulated requests per second of wall time."""
        return self.requests / self.seconds


def main(
    *,
    plan_file: Annotated[Path | None, typer.Argument(help="A plan.")] = None,
    data: Annotated[Path | None, typer.Option(help="Or the artifact's data folder.")] = None,
    plan_set: Annotated[str, typer.Option("--set", help="Plan set of it.")] = "maf19",
    name: Annotated[str | None, typer.Option("--only", help="Configuration: the first.")] = None,
    load: Annotated[
        float, typer.Option(min=0.01, callback=finite, help="As a part of what is planned.")
    ] = 0.9,
    policy: Annotated[str, typer.Option(help="Batching policy.")] = "reservation",
    routing: Annotated[str, typer.Option(help="Routing policy.")] = "least-queueing",
    count: Annotated[int, typer.Option(min=100, help="Requests of each timed run.")] = 40_000,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs; the median counts.")] = 5,
    requests: Annotated[int, typer.Option(min=0, help="Of one more run, for its memory.")] = 0,
) -> None:
    """Time simulations of one plan, and of one ten times as wide."""
    with errors_in_one_line():
        scenario = Scenario(batching=policy, routing=routing)
        scenario.check()
        plan = _plan(plan_file, data, plan_set, name)
    small = Run(plan=plan, load=load, requests=count, scenario=scenario)
    wide = replace(small, plan=widened(plan))
    lines = Lines()
    timings: dict[str, list[Timing]] = {"1": [], str(WIDER): []}
    for _ in range(repeat):  # in turns, so that what else runs slows both
        timings["1"].append(small.timed())
        timings[str(WIDER)].append(wide.timed())
    medians = {}
    for width, each in timings.items():
        medians[width] = statistics.median(one.speed_rps for one in each)
        instances = sum(_instances(plan)) * int(width)
        note(f"{instances:6} instances: {medians[width]:9,.0f} requests/s")
        lines.tell(
            {
                "width": int(width),
                "instances": instances,
                "speed_rps": medians[width],
                "slowest_rps": min(one.speed_rps for one in each),
                "fastest_rps": max(one.speed_rps for one in each),
                "attainment": each[0].attainment,
                "requests": each[0].requests,
            }
        )
    memory = _in_own_process(replace(small, requests=requests)) if requests else None
    if memory is not None:
        gib = memory.peak_bytes / (1 << 30)
        note(f"{memory.requests:,} requests: {memory.seconds:.1f} s, {gib:.2f} GiB at most")
    lines.tell(
        {
            "summary": True,
            "policy": policy,
            "routing": routing,
            "load": load,
            "speed_rps": medians["1"],
            "cost_growth": medians["1"] / medians[str(WIDER)],
            "memory_requests": memory.requests if memory else None,
            "memory_seconds": memory.seconds if memory else None,
            "memory_peak_bytes": memory.peak_bytes if memory else None,
        }
    )


def widened(plan: Plan) -> Plan:
    """Return the plan on ten fleets like its own."""
    classes = tuple(replace(each, count=each.count * WIDER) for each in plan.gpu_classes)
    return replace(plan, gpu_classes=classes, models=tuple(_wider(each) for each in plan.models))


def _wider(model: ModelPlan) -> ModelPlan:
    return replace(
        model,
        throughput_rps=model.throughput_rps * WIDER,
        pools=tuple(replace(each, instances=each.instances * WIDER) for each in model.pools),
        pipelines=tuple(
            replace(each, throughput_rps=each.throughput_rps * WIDER) for each in model.pipelines
        ),
    )


def _plan(plan_file: Path | None, data: Path | None, plan_set: str, name: str | None) -> Plan:
    if (plan_file is None) == (data is None):
        raise InvalidSettings("arguments", "", "a plan file, or --data", "both or none")
    if plan_file is not None:
        return read_plan(plan_file.read_text(encoding="utf-8"), str(plan_file))
    if data is None:
        raise InvalidSettings("arguments", "", "a plan file, or --data", "none")
    folder = data_folder(data)
    chosen = name or configuration_names(folder, plan_set)[0]
    return plan_of(read_configuration(folder, plan_set, chosen), Scheduler.PPIPE)


def _instances(plan: Plan) -> Iterator[int]:
    return (pool.instances for model in plan.models for pool in model.pools)


def _in_own_process(run: Run) -> Timing:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run.timed).result()


if __name__ == "__main__":
    typer.run(main)

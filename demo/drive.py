"""Serves a plan, loads it with real images and checks every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.arrays import tensor_of
from client.inputs import Inputs
from client.load import LoadSettings, Target, run_load
from client.messages import Answer
from client.outcomes import LoadResult, RequestOutcome
from demo.digits import IMAGES, SCORES
from demo.prepare import MODEL, Paths, Prepared
from launcher.local import FleetSettings, LocalFleet, read_counter
from penstock.arrivals import Poisson
from penstock.domain.arrivals import Arrival
from penstock.domain.outcomes import Outcome, Summary, summarise
from penstock.domain.plan import Plan
from penstock.domain.units import Micros
from simulator.simulate import Scenario, planned_load, simulate_plan

START_LIMIT_S = 90.0
SEED = 7

# An answer that differs by more than this part of the largest score is wrong (fp32, other
# batch sizes choose other kernels; a GPU adds up in another order than the host).
TOLERANCE = 1e-5
GPU_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Served answers against the unsplit model's own.

    Attributes:
        wrong: answers whose class differs or whose scores are off by more than the tolerance.
        largest_error: of a score, relative to the largest score of all.
        accuracy: of the served answers against the labels.
    """

    answers: int
    wrong: int
    largest_error: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on one plan.

    Attributes:
        offered_load: offered rate by the plan's own throughput.
        overruns: batches whose real computation took longer than the emulated device's.
        simulated: what the simulator says of the very same arrivals.
    """

    planned_rps: float
    offered_load: float
    summary: Summary
    outcomes: tuple[Outcome, ...]
    checked: Checked
    overruns: int
    simulated: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to offer: a Poisson stream at this rate for this long."""

    rate_rps: float
    duration_us: Micros


def fleet_settings(
    plan_file: Path, paths: Paths, name: str, *, emulated: bool = True
) -> FleetSettings:
    """Return how the demo starts a plan: on free ports, logs beside its files."""
    return FleetSettings(
        plan=plan_file,
        repository=paths.repository,
        executor="emulated" if emulated else "cuda",
        logs=paths.root / "logs" / name,
        run_log=paths.root / f"run-{name}.jsonl",
    )


def drive(
    prepared: Prepared,
    plan: Plan,
    settings: FleetSettings,
    loads: list[Load],
    on_progress: Callable[[int, int], None],
) -> list[Run]:
    """Start the fleet of a plan, offer each load in turn, stop the fleet.

    Raises:
        LaunchFailed: the fleet did not come up.
    """
    with LocalFleet(settings, plan) as fleet:
        addresses = fleet.start(START_LIMIT_S)
        runs: list[Run] = []
        overruns = 0
        for load in loads:
            arrivals = arrivals_of(plan, load)
            answers = _Answers()
            result = _offer(
                prepared, plan, addresses.inference, arrivals, load, answers, on_progress
            )
            overran = int(read_counter(addresses.metrics, "penstock_emulation_overruns_total"))
            runs.append(_run(prepared, plan, load, arrivals, result, answers, overran - overruns))
            overruns = overran
        return runs


def arrivals_of(plan: Plan, load: Load) -> list[Arrival]:
    """Return the Poisson arrivals of a load; equal for equal loads."""
    planned_rps = plan.model(MODEL).throughput_rps
    return planned_load(plan, load.rate_rps / planned_rps, load.duration_us, Poisson(), SEED)


class _Answers:
    """Puts answers aside as they come, by the image they belong to."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.scores: list[np.ndarray] = []

    def take(self, outcome: RequestOutcome, answer: Answer) -> None:
        self.rows.append(outcome.first_row)
        self.scores.append(answer.array(SCORES)[0])


def _offer(
    prepared: Prepared,
    plan: Plan,
    address: str,
    arrivals: list[Arrival],
    load: Load,
    answers: _Answers,
    on_progress: Callable[[int, int], None],
) -> LoadResult:
    inputs = Inputs(tensors=(tensor_of(IMAGES, prepared.digits.test_images),))
    settings = LoadSettings(
        address=address,
        arrivals=tuple(arrivals),
        targets={MODEL: Target(inputs=inputs, slo_us=plan.model(MODEL).slo_us)},
        duration_us=load.duration_us,
    )
    return asyncio.run(run_load(settings, on_answer=answers.take, on_progress=on_progress))


def _run(
    prepared: Prepared,
    plan: Plan,
    load: Load,
    arrivals: list[Arrival],
    result: LoadResult,
    answers: _Answers,
    overruns: int,
) -> Run:
    outcomes = result.as_outcomes()
    planned_rps = plan.model(MODEL).throughput_rps
    return Run(
        planned_rps=planned_rps,
        offered_load=load.rate_rps / planned_rps,
        summary=summarise(outcomes, load.duration_us),
        outcomes=outcomes,
        checked=check(prepared, answers.rows, answers.scores),
        overruns=overruns,
        simulated=simulate_plan(plan, arrivals, load.duration_us, Scenario()).summary(),
    )


def check(prepared: Prepared, rows: list[int], scores: list[np.ndarray]) -> Checked:
    """Compare served scores with the unsplit model's, and their classes with the labels.

    Args:
        prepared: holds what the unsplit model says of each test image.
        rows: the test image of each answer.
        scores: the answers, each of shape (10,).
    """
    if not rows:
        return Checked(answers=0, wrong=0, largest_error=0.0, accuracy=0.0)
    served = np.stack(scores)
    expected = prepared.scores[rows]
    errors = np.abs(served - expected).max(axis=1) / np.abs(prepared.scores).max()
    classes = served.argmax(axis=1)
    tolerance = TOLERANCE if prepared.emulated else GPU_TOLERANCE
    wrong = (classes != expected.argmax(axis=1)) | ~(errors <= tolerance)
    return Checked(
        answers=len(rows),
        wrong=int(wrong.sum()),
        largest_error=float(errors.max()),
        accuracy=float((classes == prepared.digits.test_labels[rows]).mean()),
    )

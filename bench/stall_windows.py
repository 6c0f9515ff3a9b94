"""A fleet of two models on two workers, and windows of load on it: quiet, or disturbed.

One model is measured, the other is what disturbances are aimed at; both have load all the time, so
windows differ in the disturbance only. Knows no table, line or bar.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.footprint import Footprint, footprint, frugal_heaps
from bench.identity import DATATYPE, write_identity
from bench.processes import family
from bench.scarcity import children_without_growth, short_files
from client.inputs import random_inputs
from client.load import LoadSettings, Target, run_load
from client.outcomes import RequestOutcome
from launcher.local import Addresses, FleetSettings, LocalFleet, read_counter
from penstock.arrivals import Poisson, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.errors import PenstockError
from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Summary, summarise
from penstock.domain.units import US_PER_SECOND, Bytes, Micros, micros_from_seconds
from penstock.formats.plans import read_plan

KIB, MIB = 1 << 10, 1 << 20
STEADY, VICTIM = ModelName("steady"), ModelName("victim")
STEADY_BYTES, VICTIM_BYTES = 16 * KIB, 64 * KIB  # of a row
VICTIM_RPS = 20.0
SLO_US: Micros = 100_000
STOP_S = 5.0
SCARCE_BYTES: Bytes = MIB  # of each segment; and of a region that may be written

HALF_SENT, UNREAD, STOPPED, MEMORY_FULL, ALL = CASES = (
    "half-sent",
    "unread",
    "stopped",
    "memory-full",
    "all",
)
IN_FLIGHT = "penstock_requests_in_flight"

_PARTS = {ALL: (HALF_SENT, UNREAD, STOPPED, MEMORY_FULL)}
_BATCH = 32
_ELEMENT_BYTES = 4
_READY_S = 60.0
_ONSET_S = 0.2  # after the load has begun
_AFTER_S = 0.3
_SETTLED_S = 5.0
_POLL_S = 0.1
_DEADLINE_US = 15 * US_PER_SECOND  # whoever waits so long was lost: nothing is stopped for longer
_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some seconds of load.

    Attributes:
        steady: what became of the measured model's requests.
        victim: statuses of the other model's usual requests, and how many.
        told: what each part of the disturbance tells of itself.
    """

    case: str
    disturbed: bool
    steady: Summary
    victim: Mapping[str, int]
    told: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that is needed for windows.

    Attributes:
        roots: ids of the fleet's processes that have no parent in it, by name.
        victim_process: the instance of the model that disturbances are aimed at.
        disturber: the process whose clients stall.
        rate_rps: of the measured model.
    """

    addresses: Addresses
    roots: Mapping[str, int]
    victim_process: int
    disturber: subprocess.Popen[str]
    rate_rps: float

    def footprints(self) -> dict[str, Footprint]:
        """Return what each process of the fleet holds."""
        return {name: footprint(process) for name, process in family(self.roots).items()}

    def open_requests(self) -> int:
        """Return how many requests have not ended."""
        return round(read_counter(self.addresses.metrics, IN_FLIGHT))

    def settle(self, before: Mapping[str, Footprint] | None = None) -> None:
        """Wait until nothing is under way and no more is open than before, some seconds at most."""
        until_s = time.monotonic() + _SETTLED_S
        while self._busy(before or {}) and time.monotonic() < until_s:
            time.sleep(_POLL_S)

    def _busy(self, before: Mapping[str, Footprint]) -> bool:
        now = self.footprints()
        grown = (now[name].open_files > each.open_files for name, each in before.items())
        return self.open_requests() > 0 or any(grown)


@contextmanager
def a_stage(rate_rps: float, options: tuple[str, ...] = ()) -> Iterator[Stage]:
    """Serve both models, with little shared memory for links, until the block ends.

    Args:
        rate_rps: of the measured model.
        options: further ones of the frontend.

    Raises:
        LaunchFailed: the fleet does not come up.
        PenstockError: memory cannot be made scarce here.
    """
    with tempfile.TemporaryDirectory() as folder, children_without_growth(SCARCE_BYTES) as thread:
        directory = Path(folder)
        models = ((STEADY, STEADY_BYTES), (VICTIM, VICTIM_BYTES))
        plan_file = write_identity(directory, models, _BATCH, real=False, share=Fraction(1))
        settings = FleetSettings(
            plan=plan_file,
            repository=directory / "models",
            executor="emulated-shapes",
            logs=directory / "logs",
            frontend_options=options,
        )
        plan = read_plan(plan_file.read_text(encoding="utf-8"), str(plan_file))
        with LocalFleet(settings, plan) as fleet:
            with frugal_heaps():
                addresses = thread.submit(fleet.start, _READY_S).result()
            with _a_disturber(addresses.inference) as disturber:
                yield Stage(
                    addresses=addresses,
                    roots=dict(fleet.process_ids),
                    victim_process=_victim_process(addresses.metrics, fleet.process_ids),
                    disturber=disturber,
                    rate_rps=rate_rps,
                )


async def run_window(
    stage: Stage, case: str, *, disturbed: bool, seconds: float, seed: int
) -> Window:
    """Offer load for a while.

    Args:
        stage: whom to.
        case: one of `CASES`.
        disturbed: do that meanwhile; else it is a quiet window beside such.
        seconds: at least; stopping a process takes its time.
        seed: equal ones give equal arrivals.
    """
    parts = _PARTS.get(case, (case,)) if disturbed else ()
    busy_s = seconds - _ONSET_S - _AFTER_S
    if STOPPED in parts:
        seconds = max(seconds, _ONSET_S + STOP_S + _AFTER_S)
    load = _load(stage, micros_from_seconds(seconds), seed)
    disturbing = _Disturbing(stage, parts, busy_s, seconds)
    async with asyncio.TaskGroup() as group:
        group.create_task(disturbing.run())
        running = group.create_task(run_load(load))
    return _window(case, running.result().outcomes, load.duration_us, disturbing.told, disturbed)


class _Disturbing:
    """What goes on beside the load of one window.

    Args:
        stage: where.
        parts: what.
        busy_s: how long clients ask for something; then they are only there.
        seconds: of the window.
    """

    def __init__(self, stage: Stage, parts: Sequence[str], busy_s: float, seconds: float) -> None:
        self._stage = stage
        self._parts = parts
        self._busy_s = busy_s
        self._lasting_s = seconds - _ONSET_S
        self.told: Mapping[str, Mapping[str, Any]] = {}

    async def run(self) -> None:
        """Begin shortly after the load, last until its end, and end."""
        await asyncio.sleep(_ONSET_S)
        async with asyncio.TaskGroup() as group:
            if STOPPED in self._parts:
                group.create_task(self._stop())
            if clients := [each for each in self._parts if each != STOPPED]:
                group.create_task(self._clients(clients))

    async def _stop(self) -> None:
        process = self._stage.victim_process
        os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOP_S)
        finally:
            os.kill(process, signal.SIGCONT)

    async def _clients(self, names: Sequence[str]) -> None:
        frontend = self._stage.roots["frontend"]
        scarce = MEMORY_FULL in names
        with short_files(frontend, SCARCE_BYTES) if scarce else nullcontext():
            lasting = asyncio.create_task(asyncio.sleep(self._lasting_s))
            await self._order({"begin": names, "seconds": self._busy_s})
            await lasting
        self.told = await self._order({})

    async def _order(self, order: Mapping[str, object]) -> dict[str, Any]:
        return await asyncio.to_thread(_ask, self._stage.disturber, order)


def _ask(disturber: subprocess.Popen[str], order: Mapping[str, object] | None) -> dict[str, Any]:
    """Give an order, or none, and return what is answered.

    Raises:
        PenstockError: the process has ended.
    """
    if disturber.stdin is None or disturber.stdout is None:
        raise PenstockError("the process that disturbs has no pipes")
    if order is not None:
        disturber.stdin.write(json.dumps(order) + "\n")
        disturber.stdin.flush()
    line = disturber.stdout.readline()
    if not line:
        raise PenstockError("the process that disturbs has ended; it said why")
    told: dict[str, Any] = json.loads(line)
    return told


@contextmanager
def _a_disturber(address: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.disturber", address, VICTIM, str(VICTIM_BYTES)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        _ask(process, None)
        yield process


def _victim_process(metrics: str, roots: Mapping[str, int]) -> int:
    """Return the process of the instance that serves the model disturbances are aimed at."""
    with urllib.request.urlopen(f"http://{metrics}/status.json", timeout=_READY_S) as page:
        workers = json.loads(page.read())["workers"]
    serving = next(each for each in workers if each["instances"][0].startswith(VICTIM))
    return family(roots)[f"worker-{serving['worker']}.0"]


def _load(stage: Stage, duration_us: Micros, seed: int) -> LoadSettings:
    dice = random.Random(seed)
    rates = {STEADY: stage.rate_rps, VICTIM: VICTIM_RPS}
    arrivals = [
        Arrival(arrival_us=each, model=model, samples=1)
        for model, rate_rps in rates.items()
        for each in instants_of(Poisson(), rate_rps, duration_us, dice)
    ]
    return LoadSettings(
        address=stage.addresses.inference,
        arrivals=tuple(sorted(arrivals, key=lambda each: each.arrival_us)),
        targets={STEADY: _target(STEADY_BYTES), VICTIM: _target(VICTIM_BYTES)},
        duration_us=duration_us,
        connections=_CONNECTIONS,
        deadline_us=_DEADLINE_US,
    )


def _target(row_bytes: Bytes) -> Target:
    spec = TensorSpec(name="x", datatype=DATATYPE, shape=(DYNAMIC, row_bytes // _ELEMENT_BYTES))
    return Target(inputs=random_inputs((spec,), 0), slo_us=SLO_US)


def _window(
    case: str,
    outcomes: Sequence[RequestOutcome],
    duration_us: Micros,
    told: Mapping[str, Mapping[str, Any]],
    disturbed: bool,
) -> Window:
    steady = [each.as_outcome() for each in outcomes if each.model == STEADY]
    victim = Counter(each.status for each in outcomes if each.model == VICTIM)
    return Window(
        case=case,
        disturbed=disturbed,
        steady=summarise(steady, duration_us),
        victim=dict(victim),
        told=told,
    )

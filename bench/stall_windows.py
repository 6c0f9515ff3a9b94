"""Windows of load on a fleet of two models: quiet, or disturbed.

Both models have load all the time, so windows differ in the disturbance only. Knows no table, line
or bar.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from bench.identity import DATATYPE
from bench.scarcity import short_files
from bench.stall_stage import (
    SCARCE_BYTES,
    STEADY,
    STEADY_BYTES,
    VICTIM,
    VICTIM_BYTES,
    Stage,
    ask,
)
from client.inputs import random_inputs
from client.load import LoadSettings, Target, run_load
from client.outcomes import RequestOutcome
from penstock.arrivals import Poisson, instants_of
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.outcomes import Summary, summarise
from penstock.domain.units import US_PER_SECOND, Bytes, Micros, micros_from_seconds

VICTIM_RPS = 20.0
SLO_US: Micros = 100_000
STOP_S = 5.0

HALF_SENT, UNREAD, STOPPED, MEMORY_FULL, ALL = CASES = (
    "half-sent",
    "unread",
    "stopped",
    "memory-full",
    "all",
)
SCARCE_CASES = frozenset({MEMORY_FULL, ALL})  # those that are about little shared memory

_PARTS = {ALL: (HALF_SENT, UNREAD, STOPPED, MEMORY_FULL)}
_ELEMENT_BYTES = 4
_ONSET_S = 0.2  # after the load has begun
_AFTER_S = 0.3
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
        return await asyncio.to_thread(ask, self._stage.disturber, order)


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

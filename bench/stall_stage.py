"""A fleet of two models on two workers: what windows of load are run on.

One model is measured, the other is what disturbances are aimed at. The fleet runs as anybody's
does, unless it is to have little shared memory, or to be counted. Knows no load and no window.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.footprint import Footprint, footprint, frugal_heaps
from bench.identity import write_identity
from bench.processes import family
from bench.scarcity import children_without_growth
from launcher.local import Addresses, FleetSettings, LocalFleet, read_counter
from penstock.domain.errors import PenstockError
from penstock.domain.ids import ModelName
from penstock.domain.units import BYTES_PER_MIB, Bytes
from penstock.formats.plans import read_plan

STEADY, VICTIM = ModelName("steady"), ModelName("victim")
STEADY_BYTES, VICTIM_BYTES = 16 << 10, 64 << 10  # of a row
SCARCE_BYTES: Bytes = BYTES_PER_MIB  # of each segment; and of a region that may be written
IN_FLIGHT = "penstock_requests_in_flight"

_BATCH = 32
_READY_S = 60.0
_SETTLED_S = 5.0
_POLL_S = 0.1


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
def a_stage(
    rate_rps: float,
    options: tuple[str, ...] = (),
    *,
    scarce: bool = False,
    frugal: bool = False,
) -> Iterator[Stage]:
    """Serve both models until the block ends.

    Args:
        rate_rps: of the measured model.
        options: further ones of the frontend.
        scarce: links get little shared memory.
        frugal: heaps keep nothing for later: for counting memory. That costs time.

    Raises:
        LaunchFailed: the fleet does not come up.
        PenstockError: memory cannot be made scarce here.
    """
    starter = children_without_growth(SCARCE_BYTES) if scarce else ThreadPoolExecutor(1)
    with tempfile.TemporaryDirectory() as folder, starter as thread:
        settings = _fleet_settings(Path(folder), options)
        plan = read_plan(settings.plan.read_text(encoding="utf-8"), str(settings.plan))
        with LocalFleet(settings, plan) as fleet:
            with frugal_heaps() if frugal else nullcontext():
                addresses = thread.submit(fleet.start, _READY_S).result()
            with _a_disturber(addresses.inference) as disturber:
                yield Stage(
                    addresses=addresses,
                    roots=dict(fleet.process_ids),
                    victim_process=_victim_process(addresses.metrics, fleet.process_ids),
                    disturber=disturber,
                    rate_rps=rate_rps,
                )


def _fleet_settings(directory: Path, options: tuple[str, ...]) -> FleetSettings:
    """Write plan and repository of both models, and return what to start."""
    models = ((STEADY, STEADY_BYTES), (VICTIM, VICTIM_BYTES))
    return FleetSettings(
        plan=write_identity(directory, models, _BATCH, real=False, share=Fraction(1)),
        repository=directory / "models",
        executor="emulated-shapes",
        logs=directory / "logs",
        frontend_options=options,
    )


def ask(disturber: subprocess.Popen[str], order: Mapping[str, object] | None) -> dict[str, Any]:
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
        ask(process, None)
        yield process


def _victim_process(metrics: str, roots: Mapping[str, int]) -> int:
    """Return the process of the instance that serves the model disturbances are aimed at."""
    with urllib.request.urlopen(f"http://{metrics}/status.json", timeout=_READY_S) as page:
        workers = json.loads(page.read())["workers"]
    serving = next(each for each in workers if each["instances"][0].startswith(VICTIM))
    return family(roots)[f"worker-{serving['worker']}.0"]

"""A whole fleet on this host, from plan file to processes, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.local import Addresses, FleetSettings, LocalFleet
from penstock.domain.plan import Plan
from penstock.formats.plans import write_plan
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.repositories import write_shapes_model

WIDTH = 3
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFleet:
    """A fleet that serves model ``m``."""

    fleet: LocalFleet
    addresses: Addresses
    plan: Plan


def a_two_stage_plan(digest: str, *, slo_us: int = 1_000_000) -> Plan:
    """One instance for the first stage and two for the second."""
    pools = (
        a_pool("p0", latencies_us=(5_000,) * 4),
        a_pool(
            "p1",
            position=1,
            blocks=(1, 2),
            gpu_class="slow",
            latencies_us=(8_000,) * 4,
            instances=2,
        ),
    )
    model = a_model_plan(pools, slo_us=slo_us, throughput_rps=200.0)
    return a_plan(replace(model, blocks_digest=digest), hop_us=1_000)


def write_fleet(directory: Path, **plan: int) -> tuple[FleetSettings, Plan]:
    """Write repository and plan of a fleet whose devices emulate timing only."""
    repository = directory / "models"
    made = a_two_stage_plan(write_shapes_model(repository, width=WIDTH), **plan)
    file = directory / "plan.json"
    file.write_text(write_plan(made), encoding="utf-8")
    settings = FleetSettings(
        plan=file,
        repository=repository,
        executor="emulated-shapes",
        logs=directory / "logs",
        run_log=directory / "run.jsonl",
    )
    return settings, made


@contextmanager
def a_fleet(directory: Path, **plan: int) -> Iterator[RunningFleet]:
    """Run a fleet until the block ends."""
    settings, made = write_fleet(directory, **plan)
    with LocalFleet(settings, made) as fleet:
        yield RunningFleet(fleet=fleet, addresses=fleet.start(START_LIMIT_S), plan=made)


def descendants(process_id: int) -> set[int]:
    """Return the ids of all processes below one, read from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it ended while we looked
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    grown = {process_id}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def still_alive(process_ids: Iterable[int]) -> set[int]:
    """Return those that run; a zombie does not."""
    alive: set[int] = set()
    for process_id in process_ids:
        try:
            stat = Path(f"/proc/{process_id}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z":
            alive.add(process_id)
    return alive

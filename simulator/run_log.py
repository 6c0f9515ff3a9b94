"""Writes the run log of a simulation, as a frontend writes that of a live run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from penstock import __version__
from penstock.domain.errors import InvalidSettings
from penstock.domain.units import Micros
from penstock.formats.runlog import write_entry
from penstock.formats.runlog_header import LogHeader, spelled, write_header
from penstock.policies import batching_policy, routing_policy
from penstock.scheduling.dispatcher import DispatcherLimits
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event
from simulator.per_hop import stage_policy

Log: TypeAlias = Callable[[Micros, Event, Sequence[Effect]], None]


@contextmanager
def run_log(path: Path | None, batching: str, routing: str) -> Iterator[Log | None]:
    """Open a log with its header, if one is wanted.

    Raises:
        InvalidSettings: the policy cannot be logged.
        OSError: the file cannot be written.
        UnknownName: a policy does not exist.
    """
    if path is None:
        yield None
        return
    if stage_policy(batching) is not None:  # its plan is no plan of whole models
        expected = "a policy for whole pipelines: stages for themselves are not logged"
        raise InvalidSettings("--run-log", "policy", expected, repr(batching))
    header = LogHeader(
        penstock=__version__,
        simulated=True,
        policy=spelled(batching, batching_policy(batching)()),
        routing=spelled(routing, routing_policy(routing)()),
        limits=DispatcherLimits(),
    )
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(write_header(header))

        def log(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
            file.write(write_entry(now_us, event, effects))

        yield log

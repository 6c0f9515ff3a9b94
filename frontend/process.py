"""The life of a frontend process: read the files, start, wait for a signal, drain.

Knows nothing of arguments or of how things are told to a person.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from frontend.backend import BackendFactory
from frontend.repository import read_catalogue
from frontend.run_log import run_log
from frontend.server import Addresses, Frontend
from frontend.settings import Settings
from penstock.aio.loaded import keep_loaded_objects
from penstock.domain.plan import Plan
from penstock.formats.plans import read_plan
from penstock.rpc.shutdown import StopSignals


class Listener(Protocol):
    """Is told what happens to the process."""

    def listening(self, addresses: Addresses) -> None:
        """All doors are open."""
        ...

    def readiness(self, ready: bool) -> None:
        """All models became ready, or one ceased to be."""
        ...

    def draining(self) -> None:
        """A signal asked for the end."""
        ...

    def run_log_ended(self, reason: str) -> None:
        """The run log ends before the run; perhaps called from another thread."""
        ...

    def stopped(self, unanswered: int) -> None:
        """The end, with so many accepted requests left without an answer."""
        ...


async def serve(settings: Settings, connect: BackendFactory, listener: Listener) -> int:
    """Run a frontend until a signal ends it.

    Returns:
        How many accepted requests were left without an answer.

    Raises:
        PenstockError: a file is wrong or an address is taken.
    """
    plan = _read_plan(settings.plan)
    catalogue = read_catalogue(plan, settings.repository)
    with StopSignals() as signals, run_log(settings, listener.run_log_ended) as log:
        frontend = Frontend(settings, plan, catalogue, connect, log)
        listener.listening(await frontend.start())
        keep_loaded_objects()
        async with asyncio.TaskGroup() as tasks:
            readiness = tasks.create_task(frontend.watch_readiness(listener.readiness))
            await signals.asked.wait()
            readiness.cancel()
            listener.draining()
            unanswered = await frontend.drain(signals.insisted)
    listener.stopped(unanswered)
    return unanswered


def _read_plan(path: Path) -> Plan:
    return read_plan(path.read_text(encoding="utf-8"), str(path))

"""Runs a supervisor until a signal asks it to stop."""

from __future__ import annotations

import asyncio

from penstock.rpc.shutdown import StopSignals
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor


async def serve(settings: WorkerSettings) -> None:
    """Return when a signal came and every child is gone.

    Raises:
        WorkerRefused: the frontend does not want us.
    """
    with StopSignals() as signals:
        supervisor = Supervisor(settings)
        running = asyncio.create_task(supervisor.run())
        asked = asyncio.create_task(signals.asked.wait())
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
        supervisor.stop()
        for each in (running, asked):
            each.cancel()
        await asyncio.wait((running, asked))
    if not running.cancelled():
        running.result()

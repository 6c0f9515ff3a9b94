from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.rpc.calls import FrontendLost
from worker.devices import DeviceFacts
from worker.settings import WorkerSettings, worker_settings
from worker.supervisor import Supervisor


class Forgetful(Supervisor):
    """Loses its frontend in the very moment it is cancelled, as a task group reports it."""

    async def _serve(self, facts: DeviceFacts) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise FrontendLost("frontend gone") from None


def some_settings(repository: Path) -> WorkerSettings:
    return worker_settings(
        frontend="127.0.0.1:1", gpu_class="fast", executor="emulated", repository=repository
    )


async def test_a_stop_in_the_moment_the_frontend_dies_is_not_forgotten(tmp_path: Path) -> None:
    supervisor = Forgetful(some_settings(tmp_path))
    running = asyncio.create_task(supervisor.run())
    await asyncio.sleep(0)
    supervisor.stop()
    running.cancel()
    await asyncio.wait_for(running, 5)

"""The supervisor's way in and out."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from penstock.rpc.calls import FrontendLost
from penstock.shares.base import ShareMechanism
from penstock.shares.mechanisms import NoShares, Place
from worker import supervisor as supervisor_module
from worker.devices import DeviceFacts
from worker.settings import WorkerSettings, worker_settings
from worker.supervisor import Supervisor


class Forgetful(Supervisor):
    """Loses its frontend in the very moment it is cancelled, as a task group reports it."""

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(settings)
        self.serving = asyncio.Event()

    async def _serve(self, facts: DeviceFacts, shares: ShareMechanism) -> None:
        self.serving.set()
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
    await asyncio.wait_for(supervisor.serving.wait(), 5)
    supervisor.stop()
    running.cancel()
    await asyncio.wait_for(running, 5)


async def test_shares_that_are_opened_while_we_are_stopped_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = Mock(spec=NoShares)
    opening, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slowly(name: str, place: Place) -> ShareMechanism:
        assert (name, place.device, place.own_process, place.at_once) == ("auto", "", True, True)
        loop.call_soon_threadsafe(opening.set)
        assert go_on.wait(5)
        return shares

    monkeypatch.setattr(supervisor_module, "open_share", slowly)
    running = asyncio.create_task(Supervisor(some_settings(tmp_path)).run())
    await asyncio.wait_for(opening.wait(), 5)
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    shares.close.assert_called_once()

"""Keeps one stage instance alive: starts its process, reports it, restarts it when it crashes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from fractions import Fraction

from penstock.domain.errors import StageLoadFailed
from protos.control_pb2 import InstanceGone, InstanceReady, LoadInstance, WorkerMessage
from worker.children import Child, ChildCrashed, environment
from worker.settings import InstanceSettings, RestartSettings

_log = logging.getLogger(__name__)


class Keeper:
    """Runs one instance until cancelled, or until it cannot be kept alive.

    Args:
        settings: of the instance.
        load: the command it was asked for with.
        device: of the worker.
        restart: how patient to be.
        tell: sends a message to the frontend.
    """

    def __init__(
        self,
        settings: InstanceSettings,
        load: LoadInstance,
        device: str,
        restart: RestartSettings,
        tell: Callable[[WorkerMessage], Awaitable[None]],
    ) -> None:
        self._settings = settings
        share = Fraction(load.share_numerator or 1, load.share_denominator or 1)
        self._environment = environment(settings.executor, device, share)
        self._restart = restart
        self._tell = tell

    async def run(self) -> None:
        """Keep the instance; its process is gone when this returns or is cancelled."""
        crashes = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._live()
            except StageLoadFailed as error:
                await self._gone(str(error), final=True)
                return
            except ChildCrashed as error:
                settled = asyncio.get_running_loop().time() - began > self._restart.settled_s
                crashes = 1 if settled else crashes + 1
                if crashes >= self._restart.attempts:
                    await self._gone(f"{error}; crashed {crashes} times in a row", final=True)
                    return
                await self._gone(str(error), final=False)
            await asyncio.sleep(self._pause_s(crashes))

    def _pause_s(self, crashes: int) -> float:
        pause_s = self._restart.first_pause_s * 2.0 ** (crashes - 1)
        return min(pause_s, self._restart.longest_pause_s)

    async def _live(self) -> None:
        """Run one process, from start to end.

        Raises:
            StageLoadFailed: it will not run here.
            ChildCrashed: it ended.
        """
        child = await Child.spawn(self._settings, self._environment)
        try:
            ready = await child.ready()
            message = InstanceReady(
                instance_id=self._settings.instance,
                address=f"{self._settings.host}:{ready.port}",
                load_us=ready.load_us,
                process_id=child.process_id,
            )
            _log.info("instance %s is ready at %s", message.instance_id, message.address)
            await self._tell(WorkerMessage(ready=message))
            raise ChildCrashed(await child.ended())
        finally:
            await child.stop()

    async def _gone(self, reason: str, *, final: bool) -> None:
        _log.warning("instance %s: %s", self._settings.instance, reason)
        gone = InstanceGone(instance_id=self._settings.instance, reason=reason, load_failed=final)
        await self._tell(WorkerMessage(gone=gone))

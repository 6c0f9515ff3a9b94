"""Keeps one process of stage instances alive: starts it, reports its instances, restarts it.

What crashes is a process. All of its instances are lost with it and come back with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from protos.control_pb2 import (
    Computation,
    InstanceGone,
    InstanceReady,
    ObtainedShare,
    WorkerMessage,
)
from worker.children import Child, ChildCrashed, Failed, Heard, Ready, Unloaded
from worker.settings import InstanceSettings, RestartSettings

_UNLOAD_S = 10.0

_log = logging.getLogger(__name__)


class Keeper:
    """Runs one process as long as it is to have instances, or until it cannot be kept alive.

    Args:
        environment: of the process.
        restart: how patient to be.
        tell: sends a message to the frontend.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        restart: RestartSettings,
        tell: Callable[[WorkerMessage], Awaitable[None]],
    ) -> None:
        self._environment = environment
        self._restart = restart
        self._tell = tell
        self._wanted: dict[str, InstanceSettings] = {}
        self._ready: set[str] = set()
        self._going: dict[str, asyncio.Event] = {}
        self._child: Child | None = None

    @property
    def instances(self) -> frozenset[str]:
        """Those it is to keep."""
        return frozenset(self._wanted)

    def add(self, settings: InstanceSettings) -> None:
        """Run an instance too, now or as soon as the process is there."""
        self._wanted[settings.instance] = settings
        if self._child is not None:
            self._child.load(settings)

    async def remove(self, instance: str) -> None:
        """Let an instance go; return when it is gone. One that is loading is loaded first.

        A process that does not let go of it is ended, and the others come back in a new one.
        """
        self._wanted.pop(instance, None)
        limit_s = _UNLOAD_S if instance in self._ready else None
        child = self._child
        if child is None:
            return
        gone = self._going[instance] = asyncio.Event()
        child.unload(instance)
        try:
            await asyncio.wait_for(gone.wait(), limit_s)
        except TimeoutError:
            _log.warning("instance %s does not go; its process is ended", instance)
            await child.stop()
        finally:
            self._going.pop(instance, None)

    async def run(self) -> None:
        """Keep the process; it is gone when this returns or is cancelled."""
        crashes = 0
        while self._wanted:
            began = asyncio.get_running_loop().time()
            try:
                await self._live()
            except ChildCrashed as error:
                settled = asyncio.get_running_loop().time() - began > self._restart.settled_s
                crashes = 1 if settled else crashes + 1
                if not await self._lose_all(str(error), crashes):
                    return
                await asyncio.sleep(self._pause_s(crashes))

    def _pause_s(self, crashes: int) -> float:
        pause_s = self._restart.first_pause_s * 2.0 ** (crashes - 1)
        return min(pause_s, self._restart.longest_pause_s)

    async def _live(self) -> None:
        """Run one process, from start to end.

        Raises:
            ChildCrashed: it ended though it has instances.
        """
        child = await Child.spawn(self._environment)
        try:
            self._child = child
            for settings in self._wanted.values():
                child.load(settings)
            async for heard in child.heard():
                await self._take(heard, child)
                if not self._wanted:
                    return
            unready = "" if self._ready else " before it was ready"
            raise ChildCrashed(f"{await child.ended()}{unready}")
        finally:
            self._child = None
            for gone in self._going.values():
                gone.set()
            await child.stop()

    async def _take(self, heard: Heard, child: Child) -> None:
        if isinstance(heard, Unloaded):
            self._ready.discard(heard.instance)
            if heard.instance in self._going:
                self._going[heard.instance].set()
            return
        if heard.instance not in self._wanted:
            return
        if isinstance(heard, Ready):
            await self._report(heard, child)
        elif not heard.final:
            raise ChildCrashed(heard.reason)
        else:
            del self._wanted[heard.instance]
            await self._gone(heard)

    async def _report(self, ready: Ready, child: Child) -> None:
        self._ready.add(ready.instance)
        host = self._wanted[ready.instance].host
        message = InstanceReady(
            instance_id=ready.instance,
            address=f"{host}:{ready.port}",
            load_us=ready.load_us,
            process_id=child.process_id,
            computation=Computation(**asdict(ready.computation)),
            share=ObtainedShare(**asdict(ready.obtained)),
        )
        words = ", ".join(filter(None, (ready.obtained.words, ready.computation.words)))
        place = f"{message.address}: {words}" if words else message.address
        _log.info("instance %s is ready at %s", ready.instance, place)
        await self._tell(WorkerMessage(ready=message))

    async def _lose_all(self, reason: str, crashes: int) -> bool:
        """Report every instance lost; say whether they are to come back."""
        final = crashes >= self._restart.attempts
        many = f"; crashed {crashes} times in a row" if final else ""
        self._ready.clear()
        for instance in tuple(self._wanted):
            await self._gone(Failed(instance, f"{reason}{many}", final))
        if final:
            self._wanted.clear()
        return not final

    async def _gone(self, lost: Failed) -> None:
        _log.warning("instance %s: %s", lost.instance, lost.reason)
        gone = InstanceGone(instance_id=lost.instance, reason=lost.reason, load_failed=lost.final)
        await self._tell(WorkerMessage(gone=gone))

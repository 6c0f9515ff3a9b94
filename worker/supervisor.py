"""The supervisor: offers one device to the frontend and runs what the frontend asks for.

Holds no device context and imports no array library; each stage instance has a process of its
own. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
import logging
import os

from penstock import __version__
from penstock.domain.errors import PenstockError
from penstock.domain.units import US_PER_SECOND
from penstock.rpc.calls import Attachment, FrontendLost, attached
from protos.control_pb2 import (
    Heartbeat,
    LoadInstance,
    WorkerCommand,
    WorkerHello,
    WorkerMessage,
)
from worker.devices import DeviceFacts, device_facts
from worker.keeper import Keeper
from worker.settings import InstanceSettings, WorkerSettings
from worker.stages import StageOrder

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

_log = logging.getLogger(__name__)


class WorkerRefused(PenstockError):
    """The frontend does not want this worker; asking again will not help."""


class Supervisor:
    """Runs until cancelled. A frontend that goes away is looked for again, with patience.

    Instances of a lost frontend are stopped: the next one may have another plan.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._welcomed = False
        self._stopping = False

    def stop(self) -> None:
        """Look for no other frontend; call it before cancelling.

        A task group that is failing swallows a cancellation: without this a SIGTERM in the moment
        the frontend dies would be forgotten, and the worker would look for frontends for ever.
        """
        self._stopping = True

    async def run(self) -> None:
        """Serve frontends, one after the other. No child is left when this ends.

        Raises:
            WorkerRefused: the frontend does not want us.
        """
        pause_s = _FIRST_PAUSE_S
        facts = device_facts(self._settings)
        while True:
            self._welcomed = False
            try:
                await self._serve(facts)
            except FrontendLost as lost:
                if self._stopping:
                    return
                _log.warning("%s; looking for it again", lost)
            pause_s = _FIRST_PAUSE_S if self._welcomed else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _serve(self, facts: DeviceFacts) -> None:
        async with attached(self._settings.frontend) as attachment:
            await attachment.send(WorkerMessage(hello=self._hello(facts)))
            try:
                async with asyncio.TaskGroup() as tasks:
                    async for command in attachment.commands():
                        await self._obey(command, tasks, attachment)
                    raise FrontendLost(f"frontend {self._settings.frontend} ended the conversation")
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                self._keepers.clear()

    async def _obey(
        self, command: WorkerCommand, tasks: asyncio.TaskGroup, attachment: Attachment
    ) -> None:
        match command.WhichOneof("kind"):
            case "welcome":
                self._welcomed = True
                _log.info("worker %s is attached", self._settings.worker_id)
                interval_s = command.welcome.heartbeat_interval_us / US_PER_SECOND
                tasks.create_task(_beat(attachment, interval_s))
            case "load":
                await self._unload(command.load.instance_id)
                keeper = self._keeper(command.load, attachment)
                task = tasks.create_task(keeper.run())
                self._keepers[command.load.instance_id] = task
            case "unload":
                await self._unload(command.unload.instance_id)
            case "refused":
                raise WorkerRefused(f"refused by the frontend: {command.refused.reason}")
            case _:
                _log.warning("the frontend sent a command this version does not know")

    def _keeper(self, load: LoadInstance, attachment: Attachment) -> Keeper:
        settings = InstanceSettings(
            instance=load.instance_id,
            executor=self._settings.executor,
            repository=str(self._settings.repository),
            host=self._settings.host,
            frontend_link=load.frontend_link,
            parent=os.getpid(),
            threads=self._settings.threads,
            order=StageOrder(
                model=load.model,
                version=load.version,
                first_block=load.first_block,
                end_block=load.end_block,
                batch=load.batch,
                latency_us_by_batch=tuple(load.latency_us_by_batch),
                blocks_sha256=load.blocks_sha256,
            ),
        )
        restart = self._settings.restart
        return Keeper(settings, load, self._settings.device, restart, attachment.send)

    async def _unload(self, instance: str) -> None:
        keeper = self._keepers.pop(instance, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))

    def _hello(self, facts: DeviceFacts) -> WorkerHello:
        return WorkerHello(
            worker_id=self._settings.worker_id,
            gpu_class=self._settings.gpu_class,
            server=self._settings.server,
            executor=self._settings.executor,
            device=facts.name,
            memory_bytes=facts.memory_bytes,
            version=__version__,
        )


async def _beat(attachment: Attachment, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await attachment.send(WorkerMessage(heartbeat=Heartbeat()))

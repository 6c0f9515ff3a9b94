"""The supervisor: offers one device to the frontend and runs what the frontend asks for.

Holds no device context and imports no array library; each stage instance has a process of its
own. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from penstock import __version__
from penstock.domain.errors import PenstockError
from penstock.domain.units import US_PER_SECOND
from penstock.rpc.calls import Attachment, FrontendLost, attached
from penstock.shares.base import ShareMechanism
from penstock.shares.choice import open_share
from penstock.shares.mechanisms import Place
from protos.control_pb2 import Heartbeat, WorkerCommand, WorkerHello, WorkerMessage
from worker.devices import DeviceFacts, device_facts
from worker.metrics import WorkerMetrics, serve_metrics
from worker.processes import Processes
from worker.settings import GPU_EXECUTORS, WorkerSettings

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_WATCH_S = 1.0

_log = logging.getLogger(__name__)


class WorkerRefused(PenstockError):
    """The frontend does not want this worker; asking again will not help."""


class SharesLost(PenstockError):
    """Instances are not held to their shares any more."""


class Supervisor:
    """Runs until cancelled. A frontend that goes away is looked for again, with patience.

    Instances of a lost frontend are stopped: the next one may have another plan.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._metrics = WorkerMetrics(settings)
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
            SharesLost: what keeps instances apart on the device is gone.
            PenstockError: the device or the way to share it that was asked for is not there.
        """
        settings = self._settings
        facts = device_facts(settings.executor, settings.device, settings.gpu_class)
        shares = await _opened_shares(settings, facts)
        try:
            async with serve_metrics(self._metrics, settings):
                await self._serve_all(facts, shares)
        finally:
            shares.close()

    async def _serve_all(self, facts: DeviceFacts, shares: ShareMechanism) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._welcomed = False
            try:
                await self._serve(facts, shares)
            except FrontendLost as lost:
                if self._stopping:
                    return
                _log.warning("%s; looking for it again", lost)
            pause_s = _FIRST_PAUSE_S if self._welcomed else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _serve(self, facts: DeviceFacts, shares: ShareMechanism) -> None:
        async with attached(self._settings.frontend) as attachment:
            await attachment.send(WorkerMessage(hello=self._hello(facts, shares)))

            async def tell(message: WorkerMessage) -> None:
                self._metrics.note(message)
                await attachment.send(message)

            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_watch(shares))
                    processes = Processes(self._settings, shares, tell, tasks)
                    async for command in attachment.commands():
                        await self._obey(command, tasks, attachment, processes)
                    raise FrontendLost(f"frontend {self._settings.frontend} ended the conversation")
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                shares.release_all()
                self._metrics.forget_instances()

    async def _obey(
        self,
        command: WorkerCommand,
        tasks: asyncio.TaskGroup,
        attachment: Attachment,
        processes: Processes,
    ) -> None:
        match command.WhichOneof("kind"):
            case "welcome":
                self._welcomed = True
                _log.info("worker %s is attached", self._settings.worker_id)
                interval_s = command.welcome.heartbeat_interval_us / US_PER_SECOND
                tasks.create_task(_beat(attachment, interval_s))
            case "load":
                await processes.load(command.load)
            case "unload":
                await processes.unload(command.unload.instance_id)
            case "refused":
                raise WorkerRefused(f"refused by the frontend: {command.refused.reason}")
            case _:
                _log.warning("the frontend sent a command this version does not know")

    def _hello(self, facts: DeviceFacts, shares: ShareMechanism) -> WorkerHello:
        return WorkerHello(
            worker_id=self._settings.worker_id,
            gpu_class=self._settings.gpu_class,
            server=self._settings.server,
            executor=self._settings.executor,
            device=facts.name,
            memory_bytes=facts.memory_bytes,
            version=__version__,
            share=shares.name,
            share_note=shares.note,
            process_per=self._settings.process_per,
        )


async def _beat(attachment: Attachment, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await attachment.send(WorkerMessage(heartbeat=Heartbeat()))


async def _watch(shares: ShareMechanism) -> None:
    """Return never.

    Raises:
        SharesLost: shares are not kept any more.
    """
    while True:
        reason = shares.lost()
        if reason:
            raise SharesLost(reason)
        await asyncio.sleep(_WATCH_S)


async def _opened_shares(settings: WorkerSettings, facts: DeviceFacts) -> ShareMechanism:
    """Choose how instances share the device; in a thread, because it takes seconds."""
    place = Place(
        device=facts.uuid if settings.executor in GPU_EXECUTORS else "",
        own_process=settings.process_per == "instance",
        at_once=settings.process_per == "instance",
    )
    opening = asyncio.ensure_future(asyncio.to_thread(open_share, settings.share, place))
    try:
        shares = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on: what it opens must not be left behind.
        with suppress(PenstockError):
            (await opening).close()
        raise
    if place.device:
        note = f" ({shares.note})" if shares.note else ""
        _log.info("instances share the GPU by %s%s", shares.name, note)
    return shares

"""One stage instance inside a process: its share, its stage, its computing thread and its links.

Ends when its link to the frontend or the frontend's link to it is lost; whoever is left at the
other end sees the loss. Knows nothing of the process around it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from penstock.aio.clock import MonotonicClock
from penstock.cuda.memory import DeviceMemory
from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computation
from penstock.domain.units import Micros
from penstock.rpc.device_reader import DeviceDoor
from penstock.rpc.links import FRONTEND, LinkReceiver, LinkSender, LinkServer, Neighbours
from penstock.shares.base import HeldShare, Obtained, ShareUnavailable
from penstock.shares.held import ShareHolder
from worker.device_links import device_memory, device_source
from worker.executors import new_executor
from worker.executors.base import Executor
from worker.forwarding import Forwarding
from worker.performer import StagePerformer
from worker.rows import Rows
from worker.settings import InstanceSettings
from worker.stages import Stage, open_stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stage that can be computed.

    Attributes:
        memory: of its device, if links may use it.
    """

    executor: Executor
    stage: Stage
    share: HeldShare
    computation: Computation
    memory: DeviceMemory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance that takes batches. Make it with `open_instance`.

    Attributes:
        port: of its links.
        lost: done when a link that it cannot do without is lost.
    """

    name: str
    port: int
    load_us: Micros
    obtained: Obtained
    computation: Computation
    lost: asyncio.Future[str]
    _forwarding: Forwarding
    _loaded: Loaded
    _server: LinkServer
    _frontend: LinkSender
    _compute: ThreadPoolExecutor

    async def close(self) -> None:
        """Let go of everything: links, then what lies on the share, then the share."""
        await self._server.stop()
        await self._forwarding.close()
        await self._frontend.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._compute, _unload, self._loaded)
        self._compute.shutdown(wait=False)


async def open_instance(
    settings: InstanceSettings, shares: ShareHolder, neighbours: Neighbours
) -> Instance:
    """Load a stage and open its links.

    Args:
        settings: what to load, and where the frontend is.
        shares: of this process.
        neighbours: the other instances of this process.

    Raises:
        StageLoadFailed: it will not run here.
        PenstockError: something that may pass.
    """
    began_ns = time.monotonic_ns()
    compute = ThreadPoolExecutor(1, thread_name_prefix=f"compute {settings.instance}")
    loop = asyncio.get_running_loop()
    loaded = await loop.run_in_executor(compute, _load, settings, shares)
    server = LinkServer(settings.host, neighbours=neighbours)
    frontend = LinkSender(settings.frontend_link, settings.instance)
    await frontend.opened()
    lost: asyncio.Future[str] = loop.create_future()
    frontend.closed.add_done_callback(lambda _: _lose(lost, settings.instance))
    memory = loaded.memory
    source = device_source(memory, loaded.stage) if memory is not None else None
    forwarding = Forwarding(settings.instance, frontend, neighbours, source)
    performer = StagePerformer(
        instance=settings.instance,
        executor=loaded.executor,
        compute=compute,
        forwarding=forwarding,
        now_us=MonotonicClock().now_us,
        largest_batch=settings.order.batch,
        rows=Rows((*loaded.stage.inputs, *loaded.stage.outputs)),
    )
    on_lost = _frontend_loss(lost, settings.instance)
    door = DeviceDoor(memory, performer.on_device_frame) if memory is not None else None
    await server.start(LinkReceiver(performer.on_frame, on_lost, device=door))
    return Instance(
        name=settings.instance,
        port=server.port,
        load_us=(time.monotonic_ns() - began_ns) // 1_000,
        obtained=loaded.share.obtained,
        computation=loaded.computation,
        lost=lost,
        _forwarding=forwarding,
        _loaded=loaded,
        _server=server,
        _frontend=frontend,
        _compute=compute,
    )


def _load(settings: InstanceSettings, shares: ShareHolder) -> Loaded:
    stage = open_stage(Path(settings.repository), settings.order)
    try:
        share = shares.hold(settings.share)
    except ShareUnavailable as error:
        raise StageLoadFailed(f"{stage.name}: its share of the GPU: {error}") from error
    executor = new_executor(settings.executor, settings.threads, stream=share.stream)
    try:
        computation = executor.load(stage)
        return Loaded(executor, stage, share, computation, device_memory(settings.executor))
    except BaseException:
        executor.close()
        share.close()
        raise


def _unload(loaded: Loaded) -> None:
    loaded.executor.close()
    loaded.share.close()


def _lose(lost: asyncio.Future[str], instance: str) -> None:
    if not lost.done():
        _log.info("instance %s ends: its link with the frontend is lost", instance)
        lost.set_result(instance)


def _frontend_loss(lost: asyncio.Future[str], instance: str) -> Callable[[str], None]:
    def on_peer_lost(sender: str) -> None:
        if sender == FRONTEND:
            _lose(lost, instance)

    return on_peer_lost

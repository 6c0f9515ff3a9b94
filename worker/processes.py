"""Which process has which instance: one each, or one for all of the device.

Gives every instance its share before it is started and takes it back when it is gone. Serves one
frontend; all ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fractions import Fraction

from penstock.domain.errors import PenstockError
from penstock.domain.execution import ExecutionOptions
from penstock.rpc.execution import execution_options
from penstock.shares.base import ShareMechanism, ShareOrder
from protos.control_pb2 import InstanceGone, LoadInstance, WorkerMessage
from worker.children import child_environment
from worker.keeper import Keeper
from worker.settings import InstanceSettings, WorkerSettings
from worker.stages import StageOrder

_DEVICE = ""  # key of the process that has all instances; no instance is called so


class Processes:
    """The processes of one worker.

    Invariant: an instance that a keeper has, has a share; it keeps it until it is unloaded.

    Args:
        settings: of the worker.
        shares: divides the device.
        tell: sends a message to the frontend.
        tasks: runs the keepers; when it ends, so have all processes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        shares: ShareMechanism,
        tell: Callable[[WorkerMessage], Awaitable[None]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._settings = settings
        self._shares = shares
        self._tell = tell
        self._tasks = tasks
        self._keepers: dict[str, tuple[Keeper, asyncio.Task[None]]] = {}

    async def load(self, load: LoadInstance) -> None:
        """Run an instance, anew if there is one of that name."""
        await self.unload(load.instance_id)
        share = Fraction(load.share_numerator or 1, load.share_denominator or 1)
        try:
            grant = self._shares.grant(load.instance_id, share)
            settings = self._instance(load, grant.order)
        except PenstockError as error:
            self._shares.release(load.instance_id)
            gone = InstanceGone(instance_id=load.instance_id, reason=str(error), load_failed=True)
            await self._tell(WorkerMessage(gone=gone))
            return
        key = self._key(load.instance_id)
        keeper, task = self._keepers.get(key, (None, None))
        if keeper is not None and task is not None and not task.done():
            keeper.add(settings)
            return
        keeper = Keeper(child_environment(grant.environment), self._settings.restart, self._tell)
        keeper.add(settings)
        self._keepers[key] = keeper, self._tasks.create_task(keeper.run())

    async def unload(self, instance: str) -> None:
        """Let an instance go, if there is one of that name."""
        key = self._key(instance)
        if key in self._keepers and instance in self._keepers[key][0].instances:
            await self._take_out(key, instance)
        self._shares.release(instance)

    async def _take_out(self, key: str, instance: str) -> None:
        keeper, task = self._keepers[key]
        if keeper.instances - {instance}:
            await keeper.remove(instance)
            return
        del self._keepers[key]
        task.cancel()
        await asyncio.wait((task,))

    def _key(self, instance: str) -> str:
        return instance if self._settings.process_per == "instance" else _DEVICE

    def _instance(self, load: LoadInstance, share: ShareOrder) -> InstanceSettings:
        return InstanceSettings(
            instance=load.instance_id,
            executor=self._settings.executor,
            repository=str(self._settings.repository),
            host=self._settings.host,
            frontend_link=load.frontend_link,
            threads=self._settings.threads,
            order=StageOrder(
                model=load.model,
                version=load.version,
                first_block=load.first_block,
                end_block=load.end_block,
                batch=load.batch,
                latency_us_by_batch=tuple(load.latency_us_by_batch),
                blocks_sha256=load.blocks_sha256,
                execution=_execution(load),
            ),
            share=share,
        )


def _execution(load: LoadInstance) -> ExecutionOptions:
    return execution_options(load.execution) if load.HasField("execution") else ExecutionOptions()

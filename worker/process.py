"""A process that runs stage instances: one, or several that share its fate.

Started as ``python -m worker.process PARENT``. Reads one JSON object a line on standard input,
``{"load": {…}}`` or ``{"unload": "…"}``, and answers each with a line on standard output. Loads one
instance at a time. Lives as long as its standard input and the links of all its instances; whoever
is left at the other end sees the loss.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import asdict
from typing import Any, NoReturn, TextIO

from penstock.aio.loaded import keep_loaded_objects
from penstock.aio.loops import new_loop, usual_loop
from penstock.domain.errors import InvalidSettings, PenstockError, StageLoadFailed
from penstock.rpc.links import Neighbours
from penstock.shares.held import ShareHolder
from worker.instance import Instance, open_instance
from worker.lifeline import die_with, follow
from worker.settings import InstanceSettings

LOST = 2

# The event loop shares the interpreter with the computing thread: it must not wait long for it.
_SWITCH_INTERVAL_S = 0.0005


def main() -> NoReturn:
    """Run instances; never returns."""
    answer = _take_stdout()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    die_with(int(sys.argv[1]))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    loop = usual_loop()
    logging.getLogger(__name__).info("the event loop is %s", loop)
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        code = runner.run(_serve(answer))
        # Closing the interpreter could wait for a computation that nobody waits for.
        os._exit(code)


async def _serve(answer: TextIO) -> int:
    loop = asyncio.get_running_loop()
    instances = Instances(answer)

    def on_line(line: str) -> None:
        loop.call_soon_threadsafe(instances.ask, line)

    follow(sys.stdin.buffer, on_line)
    return await instances.run()


class Instances:
    """All instances of this process.

    Commands for one instance are obeyed in order; the unloading of one waits for no other.

    Args:
        answer: takes a line for each command.
    """

    def __init__(self, answer: TextIO) -> None:
        self._answer = answer
        self._shares = ShareHolder()
        self._neighbours = Neighbours()
        self._instances: dict[str, Instance] = {}
        self._obeying: dict[str, asyncio.Task[None]] = {}
        self._loading = asyncio.Lock()
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ask(self, line: str) -> None:
        """Take a command; one that cannot be read is the end."""
        try:
            self._obey(json.loads(line))
        except (ValueError, InvalidSettings) as error:
            self._fail(error)

    async def run(self) -> int:
        """Obey until an instance loses a link that it needs; return the exit code."""
        return await self._over

    def _obey(self, command: Mapping[str, Any]) -> None:
        match command:
            case {"load": fields}:
                settings = InstanceSettings.from_fields(fields)
                self._next(settings.instance, self._load(settings))
            case {"unload": str(name)}:
                self._next(name, self._unload(name))

    def _next(self, name: str, command: Coroutine[None, None, None]) -> None:
        """Obey a command after the one before it for the same instance."""
        task = asyncio.create_task(_after(self._obeying.get(name), command))
        task.add_done_callback(lambda done: self._fail(done.exception()))
        self._obeying[name] = task

    def _fail(self, error: BaseException | None) -> None:
        """End with what should not have happened, if it has."""
        if error is not None and not self._over.done():
            self._over.set_exception(error)

    async def _load(self, settings: InstanceSettings) -> None:
        try:
            async with self._loading:
                instance = await open_instance(settings, self._shares, self._neighbours)
                keep_loaded_objects()
        except PenstockError as error:
            final = isinstance(error, StageLoadFailed)
            self._say(settings.instance, {"failed": str(error), "final": final})
            return
        self._instances[instance.name] = instance
        instance.lost.add_done_callback(lambda _: self._lose(instance))
        ready = {"port": instance.port, "load_us": instance.load_us}
        share, computation = asdict(instance.obtained), asdict(instance.computation)
        self._say(instance.name, {"ready": ready, "share": share, "computation": computation})

    async def _unload(self, name: str) -> None:
        instance = self._instances.pop(name, None)
        if instance is not None:
            await instance.close()
            keep_loaded_objects()
        self._say(name, {"unloaded": True})

    def _lose(self, instance: Instance) -> None:
        """End the process, unless the instance was to go."""
        if self._instances.get(instance.name) is instance and not self._over.done():
            self._over.set_result(LOST)

    def _say(self, instance: str, fields: Mapping[str, object]) -> None:
        self._answer.write(json.dumps({"instance": instance, **fields}) + "\n")
        self._answer.flush()


async def _after(earlier: asyncio.Task[None] | None, command: Coroutine[None, None, None]) -> None:
    if earlier is not None:
        await asyncio.wait((earlier,))
    await command


def _take_stdout() -> TextIO:
    """Keep standard output for answers; whatever else prints goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answer


if __name__ == "__main__":
    main()

"""One child process: started, told what to run, listened to, stopped. Never restarts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.errors import PenstockError
from penstock.domain.execution import Computation
from penstock.domain.units import Micros
from penstock.shares.base import Obtained
from penstock.shares.environment import process_environment
from worker.settings import InstanceSettings

_STOP_S = 2.0


class ChildCrashed(PenstockError):
    """A child process ended that should not have."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An instance can take batches."""

    instance: str
    port: int
    load_us: Micros
    obtained: Obtained
    computation: Computation


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance did not load; the others of its process go on.

    Attributes:
        final: trying again will not help.
    """

    instance: str
    reason: str
    final: bool


@dataclass(frozen=True, slots=True)
class Unloaded:
    """An instance is gone as it was asked to."""

    instance: str


Heard: TypeAlias = Ready | Failed | Unloaded


class Child:
    """A process of stage instances. Make it with `spawn`, end it with `stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls, environment: Mapping[str, str]) -> Child:
        """Start a process without instances."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "worker.process",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environment),
            process_group=0,  # Ctrl-C is for the supervisor, which ends its children itself
        )
        return cls(process)

    @property
    def process_id(self) -> int:
        """The operating system's name for it."""
        return self._process.pid

    def load(self, settings: InstanceSettings) -> None:
        """Ask it to run an instance too."""
        self._tell({"load": settings.to_fields()})

    def unload(self, instance: str) -> None:
        """Ask it to let an instance go."""
        self._tell({"unload": instance})

    async def heard(self) -> AsyncIterator[Heard]:
        """Yield what it says until it ends."""
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            yield _heard(json.loads(line))

    async def ended(self) -> str:
        """Return when it has ended: how, in words."""
        code = await self._process.wait()
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def stop(self) -> None:
        """End it, whatever it does; return when it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _tell(self, command: Mapping[str, object]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")


def _heard(fields: Mapping[str, object]) -> Heard:
    match fields:
        case {"instance": str(name), "failed": str(reason), "final": bool(final)}:
            return Failed(name, reason, final)
        case {
            "instance": str(name),
            "ready": {"port": int(port), "load_us": int(load_us)},
            "share": dict(share),
            "computation": dict(computation),
        }:
            return Ready(name, port, load_us, Obtained(**share), Computation(**computation))
        case {"instance": str(name), "unloaded": True}:
            return Unloaded(name)
    raise ChildCrashed(f"the child said {fields!r}")


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: ours, and what must be set before it starts."""
    return {"GRPC_VERBOSITY": "ERROR", **process_environment(more)}

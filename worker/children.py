"""One child process: started, listened to until it is ready, stopped. Never restarts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from penstock.domain.errors import PenstockError, StageLoadFailed
from penstock.domain.units import Micros
from worker.settings import InstanceSettings

_STOP_S = 2.0
_PERCENT = 100


class ChildCrashed(PenstockError):
    """A child process ended that should not have."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a child says when it can take batches."""

    port: int
    load_us: Micros


class Child:
    """A stage instance's process. Make it with `spawn`, end it with `stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls, settings: InstanceSettings, environment: Mapping[str, str]) -> Child:
        """Start a process and give it its settings."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "worker.instance",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environment),
            process_group=0,  # Ctrl-C is for the supervisor, which ends its children itself
        )
        child = cls(process)
        child._tell(settings.to_json())
        return child

    @property
    def process_id(self) -> int:
        """The operating system's name for it."""
        return self._process.pid

    async def ready(self) -> Ready:
        """Return when it can take batches.

        Raises:
            StageLoadFailed: it says that it cannot, and trying again will not help.
            ChildCrashed: it ended without a word, or for a reason that may pass.
        """
        if self._process.stdout is None:
            raise ChildCrashed("the child has no output")
        line = await self._process.stdout.readline()
        if not line:
            raise ChildCrashed(f"{await self.ended()} before it was ready")
        fields = json.loads(line)
        if "failed" in fields:
            await self._process.wait()
            kind = StageLoadFailed if fields["final"] else ChildCrashed
            raise kind(fields["failed"])
        return Ready(fields["port"], fields["load_us"])

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

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode() + b"\n")


def environment(executor: str, device: str, share: Fraction) -> dict[str, str]:
    """Return the environment of a child: what must be set before it starts.

    Args:
        executor: only `cuda` looks at the rest.
        device: CUDA index of the worker's device.
        share: part of the device; takes effect where CUDA's multi-process service runs.
    """
    # The child finds our packages where we found them, not in the directory we were started in.
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    result = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result.setdefault("GRPC_VERBOSITY", "ERROR")
    if executor == "cuda":
        result["CUDA_VISIBLE_DEVICES"] = device
        if share < 1:
            result["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = f"{float(share * _PERCENT):.2f}"
    return result

"""A server as a process: started, heard until it answers rightly, stopped with all it started.

Linux. Knows nothing of load, and of a server what its definition says.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from bench.processes import family, processor_us
from bench.servers.definition import ROOT, NotAvailable, Server, Site
from bench.servers.programs.models import Rows
from client.infer import RequestFailed
from penstock.domain.units import US_PER_SECOND, Micros

_READY_S = 120.0
_POLL_S = 0.2
_ANSWER_US = 5 * US_PER_SECOND
_TOLERANCE = 1e-4
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class RunningServer:
    """One server that serves one model. A context manager: leaving stops its processes.

    Args:
        server: what to start.
        site: where.
        expected: the right answer to the model's sample.
        log: file for what it says.
        stop_s: how long it may take to stop.

    Raises:
        NotAvailable: it cannot be planned or started here.
    """

    def __init__(
        self, server: Server, site: Site, expected: Rows, log: Path, *, stop_s: float = 15.0
    ) -> None:
        self.server = server
        self.model = site.model
        self.address = f"127.0.0.1:{site.ports[0]}"
        self.request = server.wire.request(site.model)
        self._expected = expected
        self._log = log
        self._stop_s = stop_s
        self._started: set[int] = set()
        launch = server.plan(site)
        with self._log.open("wb") as sink:
            # A session of its own: Ctrl-C reaches the bench alone, which then stops the rest.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.servers.child", str(os.getpid()), *launch.command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**_our_environment(), **launch.environment},
            )

    def __enter__(self) -> RunningServer:
        """Return it, started but not yet ready."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all its processes: SIGTERM to the first, SIGKILL to what is left."""
        self.ask_to_stop()
        try:
            self._process.wait(self._stop_s)
        except subprocess.TimeoutExpired:
            self._started |= self._family()
            self._process.kill()
            self._process.wait()
        kill_orphans(self._started)

    async def wait_ready(self) -> None:
        """Return when it answers the model's sample.

        Raises:
            NotAvailable: it ended, answers wrongly, or did not answer in time.
        """
        until_s = time.monotonic() + _READY_S
        complaint = ""
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise NotAvailable(f"ended with exit code {code}: {last_line(self._log)}")
            try:
                answer = await self._ask()
            except RequestFailed as failure:
                complaint = str(failure)
                await asyncio.sleep(_POLL_S)
            else:
                self._check(answer)
                return
        raise NotAvailable(f"did not answer within {_READY_S:.0f} s: {complaint}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM to its first process, and remember all of them."""
        self._started |= self._family()
        self.resume()
        self._process.terminate()

    def pause(self) -> None:
        """Stop it from running, as far as the kernel is concerned, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def processor_us(self) -> Micros:
        """Return what all its processes that now run have used."""
        used = 0
        for process in self._family():
            with suppress(FileNotFoundError, ProcessLookupError):
                used += processor_us(process)
        return used

    def _signal(self, number: signal.Signals) -> None:
        for process in self._family():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    async def _ask(self) -> bytes:
        async with self.server.wire.client(self.address, 1) as client:
            await client.wait_connected(_ANSWER_US)
            return await client.infer_encoded(self.request, deadline_us=_ANSWER_US, turn=0)

    def _check(self, encoded: bytes) -> None:
        answer = self.server.wire.answer(self.model, encoded)
        if answer.shape != self._expected.shape or not np.allclose(
            answer, self._expected, atol=_TOLERANCE
        ):
            raise NotAvailable(f"answers {self.model} wrongly")

    def _family(self) -> set[int]:
        if self._process.poll() is not None:
            return set()
        try:
            return set(family({"root": self._process.pid}).values())
        except FileNotFoundError:  # one of them ended meanwhile
            return {self._process.pid}


def adopt_orphans() -> None:
    """Become the parent of every process whose parent ends below this one."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt orphans")


def descendants() -> set[int]:
    """Return all processes that stand below this one."""
    return set(family({"bench": os.getpid()}).values()) - {os.getpid()}


def kill_newcomers(before: set[int]) -> None:
    """Kill what stands below this process and did not before: the orphans of those that crashed."""
    kill_orphans(descendants() - before)


def kill_orphans(suspects: set[int]) -> None:
    """Kill those of some processes that stand below this one, and wait for their end."""
    while left := suspects & descendants():
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in left:
            with suppress(ChildProcessError):  # not ours yet: its parent ends first
                os.waitpid(process, 0)


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports of the loopback interface that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(int(each.getsockname()[1]) for each in sockets)
    for each in sockets:
        each.close()
    return ports


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _our_environment() -> dict[str, str]:
    """Return our environment without what would lead another interpreter to our packages."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "PYTHONPATH": str(ROOT)}

"""Keeps one acceptor's process alive: starts it, listens to it, starts another when it ends.

Knows processes and pauses; nothing of what is said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from frontend.acceptors.peers import Peer
from frontend.acceptors.stream import NoticeStream
from penstock.domain.errors import PenstockError
from protos.acceptors_pb2 import Notice

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SETTLED_S = 10.0  # whoever lived this long did not fail at the start
_END_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Who is told what happens.

    Attributes:
        welcome: an acceptor starts; says hello to it.
        hear: it said something.
        leave: it is gone.
    """

    welcome: Callable[[Peer], None]
    hear: Callable[[Peer, Notice], None]
    leave: Callable[[Peer], None]


class Keeper:
    """Runs one acceptor after the other until it is retired.

    Args:
        number: returns a number for each process that no other has.
        loop: the event loop they run on, by name.
        callbacks: told of each process.

    Attributes:
        started: done when the first one listens; holds the error if it cannot.
    """

    def __init__(self, number: Callable[[], int], loop: str, callbacks: Callbacks) -> None:
        self._number = number
        self._loop = loop
        self._callbacks = callbacks
        self._retired = False
        self._pausing = False
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._tell_end)

    def retire(self) -> None:
        """Start no other when this one ends."""
        self._retired = True
        if self._pausing:
            self._task.cancel()

    async def ended(self) -> None:
        """Return when the process has ended and no other will be started."""
        await asyncio.wait((self._task,))

    async def kill(self) -> None:
        """End the process now."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        """Let nobody wait for a start that will not come."""
        if self.started.done():
            return
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.started.cancel()
        else:
            self.started.set_exception(error)

    async def _run(self) -> None:
        pause_s = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            began_s = clock()
            reason = await self._live()
            if not self.started.done():
                raise PenstockError(f"an acceptor did not start: {reason}")
            if self._retired:
                return
            pause_s = next_pause_s(pause_s, clock() - began_s)
            _log.warning("an acceptor was lost: %s; another in %.1f s", reason, pause_s)
            await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        self._pausing = True
        await asyncio.sleep(pause_s)
        self._pausing = False

    async def _live(self) -> str:
        """Run one process from start to end; return why it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _spawn(self._loop, theirs)
            except OSError as error:
                ours.close()
                return f"no process could be started: {error.strerror}"
        try:
            peer = await self._converse(ours, process.pid)
        finally:
            await _end(process)
        return peer.broken or _ending(process)

    async def _converse(self, ours: socket.socket, process_id: int) -> Peer:
        told = self._callbacks

        def hear(notice: Notice) -> None:
            told.hear(peer, notice)

        stream = await NoticeStream.over(ours, hear)
        peer = Peer(self._number(), stream)
        told.welcome(peer)
        try:
            listening = asyncio.create_task(peer.listening.wait())
            await asyncio.wait((listening, stream.ended), return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            if peer.listening.is_set() and not self.started.done():
                self.started.set_result(None)
                _log.info("acceptor %d is process %d", peer.number, process_id)
            await stream.ended
        finally:
            stream.close()
            told.leave(peer)
        return peer


def next_pause_s(last_s: float, lived_s: float) -> float:
    """Return how long to wait before the next process.

    Args:
        last_s: how long the last pause was; 0 if there was none.
        lived_s: how long the process lived that has just ended.
    """
    if lived_s > _SETTLED_S:
        return _FIRST_PAUSE_S
    return min(max(_FIRST_PAUSE_S, 2 * last_s), _LONGEST_PAUSE_S)


def _spawn(loop: str, standard_input: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process; in a way that runs nothing of ours in the child.

    asyncio's own may fork, and a fork is told to gRPC's threads.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "frontend.acceptors", loop],
        stdin=standard_input.fileno(),
        env=_environment(),
        start_new_session=True,  # Ctrl-C is for the dispatcher, which drains its acceptors
    )


def _environment() -> dict[str, str]:
    """Return ours; the child finds our packages where we found them, wherever we were started."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


async def _end(process: subprocess.Popen[bytes]) -> None:
    """See to it that a process is gone whose stream has ended."""
    try:
        await asyncio.to_thread(process.wait, _END_S)
    except subprocess.TimeoutExpired:
        _log.warning("acceptor process %d does not end; it is killed", process.pid)
    finally:
        process.kill()
        process.wait()


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode or 0
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

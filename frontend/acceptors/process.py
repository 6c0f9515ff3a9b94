"""The process of one acceptor: `python -m frontend.acceptors LOOP`, started by a frontend.

Its standard input is a socket to the dispatcher's process, whose first notice are the settings.
Lives as long as that process does: when the socket ends, so does the acceptor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import NoReturn

from frontend.acceptors.acceptor import Acceptor
from frontend.acceptors.stream import NoticeStream
from penstock.aio.loaded import keep_loaded_objects
from penstock.aio.loops import new_loop
from penstock.domain.errors import PenstockError
from protos.acceptors_pb2 import Broken, Notice

STOPPED, FAILED, LOST = 0, 1, 2


def main() -> NoReturn:
    """Run one acceptor; never returns."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    (loop,) = sys.argv[1:]
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        # Nothing may keep a process alive whose dispatcher is gone.
        os._exit(runner.run(_serve(_take_stdin())))


class _Ears:
    """Takes notices: the settings first, the rest for the acceptor, as soon as there is one."""

    def __init__(self) -> None:
        self.settings: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self._early: list[Notice] = []
        self._acceptor: Acceptor | None = None

    def hear(self, notice: Notice) -> None:
        if self._acceptor is not None:
            self._acceptor.hear(notice)
        elif self.settings.done():
            self._early.append(notice)
        else:
            self.settings.set_result(notice)

    def belong_to(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        for notice in self._early:
            acceptor.hear(notice)
        self._early.clear()


async def _serve(end: socket.socket) -> int:
    """Be an acceptor until the dispatcher says stop or is gone; return the exit code."""
    ears = _Ears()
    stream = await NoticeStream.over(end, ears.hear)
    await asyncio.wait((ears.settings, stream.ended), return_when=asyncio.FIRST_COMPLETED)
    if stream.ended.done():
        return LOST
    try:
        acceptor = Acceptor(ears.settings.result().settings, stream)
        ears.belong_to(acceptor)
        await acceptor.start()
    except PenstockError as error:
        stream.send(Notice(broken=Broken(reason=str(error))))
        stream.close()
        await stream.ended
        return FAILED
    keep_loaded_objects()
    stopped = asyncio.create_task(acceptor.stopped.wait())
    await asyncio.wait((stopped, stream.ended), return_when=asyncio.FIRST_COMPLETED)
    if stream.ended.done():
        return LOST
    await acceptor.stop()
    return STOPPED


def _take_stdin() -> socket.socket:
    """Return the socket that standard input is, and leave nothing to read there."""
    end = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return end

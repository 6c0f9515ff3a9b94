"""A stage instance's process: loads one stage, then runs batches until its supervisor lets go.

Started as ``python -m worker.instance`` with its settings as one line on standard input. Says one
line of JSON on standard output: ``{"port": …, "load_us": …}`` when it is ready, or
``{"failed": "…"}``. Lives exactly as long as its standard input, its link to the frontend and the
frontend's link to it; whoever is left at the other end sees the loss.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TextIO

from penstock.aio.clock import MonotonicClock
from penstock.domain.errors import PenstockError, StageLoadFailed
from penstock.rpc.links import FRONTEND, LinkReceiver, LinkSender, LinkServer
from worker.executors import new_executor
from worker.executors.base import Executor
from worker.forwarding import Forwarding
from worker.lifeline import die_with
from worker.performer import StagePerformer
from worker.rows import Rows
from worker.settings import InstanceSettings
from worker.stages import Stage, open_stage

FAILED = 1
LOST = 2

# The event loop shares the interpreter with the computing thread: it must not wait long for it.
_SWITCH_INTERVAL_S = 0.0005

_log = logging.getLogger(__name__)


def main() -> NoReturn:
    """Run one instance; never returns."""
    answer = _take_stdout()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = InstanceSettings.from_json(sys.stdin.buffer.readline().decode())
    die_with(settings.parent, sys.stdin.buffer)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        code = runner.run(serve(settings, answer))
        # Closing the interpreter could wait for a computation that nobody waits for.
        os._exit(code)


async def serve(settings: InstanceSettings, answer: TextIO) -> int:
    """Load, say so, and run batches until a link that matters is lost; return the exit code."""
    compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
    began_ns = time.monotonic_ns()
    loop = asyncio.get_running_loop()
    try:
        executor, stage = await loop.run_in_executor(compute, _load, settings)
        server = LinkServer(settings.host)
        frontend = LinkSender(settings.frontend_link, settings.instance)
        await frontend.opened()
    except PenstockError as error:
        _say(answer, {"failed": str(error), "final": isinstance(error, StageLoadFailed)})
        return FAILED
    lost: asyncio.Future[str] = loop.create_future()
    performer = StagePerformer(
        instance=settings.instance,
        executor=executor,
        compute=compute,
        forwarding=Forwarding(settings.instance, frontend),
        now_us=MonotonicClock().now_us,
        largest_batch=settings.order.batch,
        rows=Rows((*stage.inputs, *stage.outputs)),
    )
    await server.start(LinkReceiver(performer.on_frame, _frontend_loss(lost)))
    load_us = (time.monotonic_ns() - began_ns) // 1_000
    _keep_loaded_objects()
    _say(answer, {"port": server.port, "load_us": load_us})
    await asyncio.wait((lost, frontend.closed), return_when=asyncio.FIRST_COMPLETED)
    _log.info("instance %s ends: its link with the frontend is lost", settings.instance)
    return LOST


def _keep_loaded_objects() -> None:
    """Take all that is loaded out of garbage collection.

    Torch and what it imports leave hundreds of thousands of objects that live as long as the
    process; a full collection that walks them stops it for more than 100 ms.
    """
    gc.collect()
    gc.freeze()


def _load(settings: InstanceSettings) -> tuple[Executor, Stage]:
    stage = open_stage(Path(settings.repository), settings.order)
    executor = new_executor(settings.executor, settings.threads)
    executor.load(stage)
    return executor, stage


def _frontend_loss(lost: asyncio.Future[str]) -> Callable[[str], None]:
    def on_peer_lost(sender: str) -> None:
        if sender == FRONTEND and not lost.done():
            lost.set_result(sender)

    return on_peer_lost


def _take_stdout() -> TextIO:
    """Keep standard output for the one line; whatever else prints goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answer


def _say(answer: TextIO, fields: dict[str, object]) -> None:
    with answer:
        answer.write(json.dumps(fields) + "\n")


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()

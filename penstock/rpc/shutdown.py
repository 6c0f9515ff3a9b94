"""Stopping well: the first signal asks, a second one insists, and nothing waits for ever.

Knows nothing of what is being stopped.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Turns SIGTERM and SIGINT into events, as a context manager inside a running loop.

    Attributes:
        asked: set by the first signal: finish what was accepted, then stop.
        insisted: set by the second: stop at once.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def __enter__(self) -> StopSignals:
        """Take the signals over."""
        loop = asyncio.get_running_loop()
        for each in SIGNALS:
            loop.add_signal_handler(each, self.stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for each in SIGNALS:
            loop.remove_signal_handler(each)

    def stop(self) -> None:
        """Ask, or insist if that was done before; what a signal does."""
        if self.asked.is_set():
            self.insisted.set()
        self.asked.set()


async def bounded(
    work: Coroutine[object, object, object], limit_s: float, insisted: asyncio.Event
) -> bool:
    """Do some work until it is done, time is up or somebody insists.

    Args:
        work: cancelled if it does not finish.
        limit_s: how long it may take.
        insisted: ends it at once.

    Returns:
        Whether the work was finished.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(insisted.wait())
    try:
        await asyncio.wait((task, watch), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finished = task.done()
        if finished:
            task.result()
        return finished
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)

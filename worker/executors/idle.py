"""Builds batch sizes in a thread of its own, when no batch has come for a while.

Knows no device: what building is, its caller says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from worker.executors.sizes import SizeBook

QUIET_S = 0.25
# Compiling keeps the interpreter busy for seconds, and a batch that comes then has to share it: so
# only where batches really are rare.
COMPILING_QUIET_S = 5.0

_log = logging.getLogger(__name__)


class IdleBuilder:
    """Works off what a book of sizes wants.

    Args:
        name: of the stage, for messages.
        build: builds one size and adds it to the book.
        quiet_s: how long no batch must have come.
        now_s: a clock that never goes back.
    """

    def __init__(
        self,
        name: str,
        book: SizeBook,
        build: Callable[[int], None],
        *,
        quiet_s: float = QUIET_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._book = book
        self._build = build
        self._quiet_s = quiet_s
        self._now_s = now_s
        self._last_batch_s = now_s()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="build sizes", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being built."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def batch(self, samples: int, size: int) -> None:
        """Take note that a batch ran at a size."""
        self._last_batch_s = self._now_s()
        if self._book.note(samples, size):
            self._wake.set()

    def step(self) -> float | None:
        """Build one size if it is quiet; return when to look again, in seconds; None: no need."""
        size = self._book.next_wanted()
        if size is None:
            return None
        left_s = self._last_batch_s + self._quiet_s - self._now_s()
        if left_s > 0:
            return left_s
        try:
            self._build(size)
            _log.info("%s: batch size %d is built", self._name, size)
        except Exception as error:  # whatever a compiler raises; larger sizes still serve
            self._book.give_up(size)
            _log.warning("%s: batch size %d stays padded: %s", self._name, size, error)
        return 0.0

    def _work(self) -> None:
        while not self._stopped:
            self._wake.clear()
            wait_s = self.step()
            if wait_s != 0.0:
                self._wake.wait(wait_s)

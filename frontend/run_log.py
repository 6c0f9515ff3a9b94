"""Writes a frontend's run log beside its event loop, which never waits for the disk.

Knows the log's lines and its file; nothing of what they mean.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

from frontend.server import Log
from frontend.settings import Settings
from penstock import __version__
from penstock.domain.units import Micros
from penstock.formats.runlog import write_entry
from penstock.formats.runlog_header import LogHeader, spelled, write_header
from penstock.policies import batching_policy, routing_policy
from penstock.scheduling.effects import Effect
from penstock.scheduling.events import Event

_EVERY_S = 0.5
_MOST_PENDING = 200_000  # entries; some 100 MB


@contextmanager
def run_log(settings: Settings, ended: Callable[[str], None]) -> Iterator[Log | None]:
    """Open the run log, if one is wanted, with its header; leaving closes it.

    Args:
        settings: of the frontend whose log it is.
        ended: told why, if the log has to end before the run; called from another thread.

    Raises:
        OSError: the file cannot be written.
        UnknownName: a policy does not exist.
    """
    if settings.run_log is None:
        yield None
        return
    head = write_header(header_of(settings))
    log = RunLogWriter(settings.run_log.open("w", encoding="utf-8", newline="\n"), head, ended)
    try:
        yield log
    finally:
        log.close()


def header_of(settings: Settings) -> LogHeader:
    """Return what the log says of the dispatcher that these settings make."""
    return LogHeader(
        penstock=__version__,
        simulated=False,
        policy=spelled(settings.policy, batching_policy(settings.policy)()),
        routing=spelled(settings.routing, routing_policy(settings.routing)()),
        limits=settings.limits,
    )


class RunLogWriter:
    """Takes what a driver logs and writes it from a thread of its own, twice a second.

    Invariant: the file holds a beginning of the run, gapless. If the disk fails or cannot keep
    up, the log ends there; serving goes on.

    Args:
        file: becomes the writer's own, which closes it.
        head: written at once, before anything is logged.
        ended: told why, if the log has to end early; called from the thread.
        every_s: time between writes: what a killed process loses at most.
        most_pending: entries that may wait for the disk.

    Raises:
        OSError: the first line cannot be written.
    """

    def __init__(
        self,
        file: TextIO,
        head: str,
        ended: Callable[[str], None],
        every_s: float = _EVERY_S,
        most_pending: int = _MOST_PENDING,
    ) -> None:
        self._file = file
        self._ended = ended
        self._every_s = every_s
        self._most_pending = most_pending
        self._pending: deque[str] = deque()  # appended to by one thread, emptied by the other
        self._gave_up = False
        self._closing = threading.Event()
        with ExitStack() as stack:
            stack.callback(file.close)
            file.write(head)
            file.flush()
            stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="run-log", daemon=True)
        self._thread.start()

    def __call__(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        """Take one entry; never blocks."""
        if self._gave_up:
            return
        self._pending.append(write_entry(now_us, event, effects))
        if len(self._pending) > self._most_pending:
            self._gave_up = True

    def close(self) -> None:
        """Write what is left; nothing may be logged any more."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._gave_up and not self._closing.wait(self._every_s):
                self._write()
            self._write()
            self._file.close()
        except OSError as error:
            self._gave_up = True
            self._pending.clear()
            with suppress(OSError):
                self._file.close()
            self._ended(error.strerror or str(error))
        else:
            if self._gave_up:
                self._ended(f"the disk cannot keep up: {self._most_pending} entries waited for it")

    def _write(self) -> None:
        ready = len(self._pending)
        if ready:
            self._file.write("".join(self._pending.popleft() for _ in range(ready)))
            self._file.flush()

"""Ctrl-C while planning: noticed, and survived with what was found so far.

The planner takes Ctrl-C as the end of its time. A verb has to know that it came, to say so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from penstock.command import INTERRUPTED
from penstock.console import note


class Interrupts:
    """Counts Ctrl-C; each is still raised as `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def handle(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        """Take one Ctrl-C."""
        self.count += 1
        raise KeyboardInterrupt


@contextmanager
def noticed() -> Iterator[Interrupts]:
    """Count each Ctrl-C that comes meanwhile; outside the main thread none does."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def leave_at_once(code: int) -> None:
    """End the process if a solver was left behind; else do nothing.

    HiGHS cannot be stopped. Its thread would compute on while the interpreter is torn down, and end
    in the middle of that: native code that then asks for the interpreter crashes or hangs.
    """
    others = [each for each in threading.enumerate() if each is not threading.current_thread()]
    if any(each.daemon for each in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def give_up(message: str) -> NoReturn:
    """End a verb that has nothing to hand over when Ctrl-C comes, and say so."""
    note(message)
    leave_at_once(INTERRUPTED)
    raise typer.Exit(INTERRUPTED)

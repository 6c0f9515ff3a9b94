"""Future actions, a feed of arrivals, and the present instant; nothing else.

Actions lie in windows of time. Only the present window is in order; the others are sorted when
their turn comes. So an action costs the same however many are scheduled, as a heap's would not.
"""

from __future__ import annotations

import sys
from bisect import insort_right
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from operator import attrgetter
from typing import Final, TypeVar

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros

T = TypeVar("T")

_PROGRESS_EVENTS: Final = 5_000
_NEVER_US: Final = sys.maxsize
_WINDOW_BITS: Final = 10  # a window is about a millisecond


class Entry:
    """One action, on its subject, at its instant.

    Compiled it fits a line of the cache, where a tuple and its numbers take four.
    """

    __slots__ = ("action", "at_us", "subject")

    def __init__(self, at_us: Micros, action: Callable[..., None], subject: object) -> None:
        self.at_us = at_us
        self.action = action
        self.subject = subject


_at_us: Final = attrgetter("at_us")


class Engine:
    """Runs actions in order of (time, order of scheduling), each on its subject.

    Invariant: what is scheduled for the present window or before it is in `_present`, in order;
    the rest is in `_later`, by window, as it was scheduled. What is sorted by time alone stays in
    the order of scheduling.
    """

    def __init__(self) -> None:
        self.now_us: Micros = 0
        self.halted = False
        self._present: list[Entry] = []
        self._done = 0  # so many of the present window's actions
        self._window = -1
        self._later: dict[int, list[Entry]] = {}
        self._windows: list[int] = []  # a heap of the windows there are
        self._feed: Iterator[tuple[Micros, object]] = iter(())
        self._on_fed: Callable[..., None] = _ignore

    def at(self, at_us: Micros, action: Callable[[T], None], subject: T) -> None:
        """Schedule an action.

        Raises:
            InvariantViolation: the instant has passed.
        """
        if at_us < self.now_us:
            raise InvariantViolation(f"scheduled for {at_us}, it is {self.now_us}")
        entry = Entry(at_us, action, subject)
        window = at_us >> _WINDOW_BITS
        if window <= self._window:
            insort_right(self._present, entry, self._done, key=_at_us)
        elif window in self._later:
            self._later[window].append(entry)
        else:
            self._later[window] = [entry]
            heappush(self._windows, window)

    def feed(self, subjects: Iterator[tuple[Micros, T]], action: Callable[[T], None]) -> None:
        """Do an action on each subject at its instant, before all else that is scheduled for it.

        They are drawn one at a time, so that the heap stays small however many there are.

        Args:
            subjects: in order of time. One feed is all there is.
            action: what is done.
        """
        self._feed = subjects
        self._on_fed = action

    def halt(self) -> None:
        """End the run with the present action, whatever is scheduled or will be."""
        self.halted = True

    def run(self, on_progress: Callable[[Micros], None] | None = None) -> None:
        """Run until nothing is scheduled.

        Args:
            on_progress: told the present instant now and then.

        Raises:
            InvariantViolation: the feed is not in order of time.
        """
        try:
            self._run(on_progress)
        finally:  # an action may know this engine: no cycle is to stay
            self._later.clear()
            self._present.clear()
            self._windows.clear()
            self._done = 0

    def _run(self, on_progress: Callable[[Micros], None] | None) -> None:
        done = 0
        fed_us, fed = self._next_fed()
        while not self.halted:
            entry = self._next_before(fed_us)
            if entry is not None:
                self.now_us = entry.at_us
                entry.action(entry.subject)
            elif fed_us < _NEVER_US:
                self.now_us = fed_us
                self._on_fed(fed)
                fed_us, fed = self._next_fed()
            else:
                return
            done += 1
            if on_progress is not None and done % _PROGRESS_EVENTS == 0:
                on_progress(self.now_us)

    def _next_before(self, at_us: Micros) -> Entry | None:
        """Return the next action if it comes before an instant, and let go of it."""
        if self._done == len(self._present):
            if not self._windows or self._windows[0] << _WINDOW_BITS >= at_us:
                return None
            self._window = heappop(self._windows)
            self._present = sorted(self._later.pop(self._window), key=_at_us)
            self._done = 0
        entry = self._present[self._done]
        if entry.at_us >= at_us:
            return None
        self._present[self._done] = _DONE  # so that it is freed now, while the cache has it
        self._done += 1
        return entry

    def _next_fed(self) -> tuple[Micros, object]:
        at_us, subject = next(self._feed, (_NEVER_US, None))
        if at_us < self.now_us:
            raise InvariantViolation(f"fed for {at_us}, it is {self.now_us}")
        return at_us, subject


def _ignore(subject: object) -> None:
    """Do nothing: there is no feed, or it is done."""


_DONE: Final = Entry(-1, _ignore, None)

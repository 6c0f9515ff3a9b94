"""Future actions, a feed of arrivals, and the present instant; nothing else."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros

T = TypeVar("T")

_PROGRESS_EVENTS = 5_000
_NEVER_US = sys.maxsize


class Engine:
    """Runs actions in order of (time, order of scheduling), each on its subject."""

    def __init__(self) -> None:
        self.now_us: Micros = 0
        self.halted = False
        self._heap: list[tuple[Micros, int, Callable[..., None], object]] = []
        self._scheduled = 0
        self._feed: Iterator[tuple[Micros, object]] = iter(())
        self._on_fed: Callable[..., None] = _ignore

    def at(self, at_us: Micros, action: Callable[[T], None], subject: T) -> None:
        """Schedule an action.

        Raises:
            InvariantViolation: the instant has passed.
        """
        if at_us < self.now_us:
            raise InvariantViolation(f"scheduled for {at_us}, it is {self.now_us}")
        heapq.heappush(self._heap, (at_us, self._scheduled, action, subject))
        self._scheduled += 1

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
        done = 0
        heap = self._heap
        fed_us, fed = self._next_fed()
        while not self.halted:
            if heap and heap[0][0] < fed_us:
                self.now_us, _, action, subject = heapq.heappop(heap)
                action(subject)
            elif fed_us < _NEVER_US:
                self.now_us = fed_us
                self._on_fed(fed)
                fed_us, fed = self._next_fed()
            else:
                return
            done += 1
            if on_progress is not None and done % _PROGRESS_EVENTS == 0:
                on_progress(self.now_us)

    def _next_fed(self) -> tuple[Micros, object]:
        at_us, subject = next(self._feed, (_NEVER_US, None))
        if at_us < self.now_us:
            raise InvariantViolation(f"fed for {at_us}, it is {self.now_us}")
        return at_us, subject


def _ignore(subject: object) -> None:
    """Do nothing: there is no feed."""

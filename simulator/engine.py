"""A heap of future actions and the present instant; nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from penstock.domain.errors import InvariantViolation
from penstock.domain.units import Micros

_PROGRESS_EVENTS = 5_000


class Engine:
    """Runs actions in order of (time, order of scheduling)."""

    def __init__(self) -> None:
        self.now_us: Micros = 0
        self._heap: list[tuple[Micros, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._halted = False

    def at(self, at_us: Micros, action: Callable[[], None]) -> None:
        """Schedule an action.

        Raises:
            InvariantViolation: the instant has passed.
        """
        if at_us < self.now_us:
            raise InvariantViolation(f"scheduled for {at_us}, it is {self.now_us}")
        heapq.heappush(self._heap, (at_us, self._scheduled, action))
        self._scheduled += 1

    def halt(self) -> None:
        """End the run with the present action, whatever is scheduled or will be."""
        self._halted = True

    def run(self, on_progress: Callable[[Micros], None] | None = None) -> None:
        """Run until nothing is scheduled.

        Args:
            on_progress: told the present instant now and then.
        """
        done = 0
        while self._heap and not self._halted:
            self.now_us, _, action = heapq.heappop(self._heap)
            action()
            done += 1
            if on_progress is not None and done % _PROGRESS_EVENTS == 0:
                on_progress(self.now_us)

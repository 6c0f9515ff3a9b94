"""The only clock of a live process: monotonic whole microseconds since it was made."""

from __future__ import annotations

import time

_NS_PER_US = 1_000


class MonotonicClock:
    """Counts from its own creation, so that instants stay small and never cross processes."""

    def __init__(self) -> None:
        self._zero_ns = time.monotonic_ns()

    def now_us(self) -> int:
        """Return microseconds since creation."""
        return (time.monotonic_ns() - self._zero_ns) // _NS_PER_US

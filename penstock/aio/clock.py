"""The only clock of a live process: monotonic whole microseconds since it was made."""

from __future__ import annotations

import time

_NS_PER_US = 1_000


class MonotonicClock:
    """Counts from its own creation, so that instants stay small and never cross hosts.

    Args:
        zero_ns: `zero_ns` of another clock of this host, to count as it does.
    """

    def __init__(self, zero_ns: int | None = None) -> None:
        self.zero_ns = time.monotonic_ns() if zero_ns is None else zero_ns

    def now_us(self) -> int:
        """Return microseconds since creation."""
        return (time.monotonic_ns() - self.zero_ns) // _NS_PER_US

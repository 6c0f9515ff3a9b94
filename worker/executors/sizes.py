"""Which batch sizes of a stage are built, which one a batch takes, and which to build next.

A batch runs at the built size that is quickest for it; the rows that are missing are padding. A
size that padding would cost much is wanted, and built when there is time. Knows no array library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# A size of its own must save this part of the time, or it is not worth memory and compiling.
WORTH = 0.1
# No smaller size measured: so much of the time is taken to be there at any number of rows.
_FIXED = 0.5
_MOST_BUILT = 16
_MEMORY = 8  # measurements that the mean forgets over


class SizeBook:
    """Sizes from 1 to the planned batch; the planned one is to be built first.

    Threads may share it: each call reads one state of it, and only one thread builds.

    Args:
        largest: the planned batch.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._built: dict[int, float | None] = {}
        self._wanted: Counter[int] = Counter(dict.fromkeys(halves(largest), 0))
        self._given_up: set[int] = set()

    @property
    def built(self) -> tuple[int, ...]:
        """Sizes that are there, ascending."""
        return tuple(sorted(self._built))

    def add(self, size: int, took_us: float | None = None) -> None:
        """Take a size that was built, and its time if that is known."""
        self._built[size] = took_us
        self._wanted.pop(size, None)

    def give_up(self, size: int) -> None:
        """Never want a size again: it cannot be built."""
        self._given_up.add(size)
        self._wanted.pop(size, None)

    def measured(self, size: int, took_us: float) -> None:
        """Learn how long a batch of that size computed."""
        known = self._built.get(size)
        new_us = took_us if known is None else known + (took_us - known) / _MEMORY
        self._built[size] = new_us

    def choose(self, samples: int) -> int:
        """Return the quickest built size for a batch; one never measured is tried.

        Raises:
            KeyError: none is large enough.
        """
        fitting = [(us or 0.0, size) for size, us in tuple(self._built.items()) if size >= samples]
        if not fitting:
            raise KeyError(samples)
        return min(fitting)[1]

    def note(self, samples: int, size: int) -> bool:
        """Learn that a batch ran at a size; return whether its own is wanted from now on."""
        if samples in self._given_up or samples in self._built:
            return False
        saved_us = self.saving_us(samples, size)
        if saved_us <= 0:
            return False
        self._wanted[samples] += round(saved_us)
        return True

    def saving_us(self, samples: int, size: int) -> float:
        """Return what a size of its own would save a batch; 0 if less than is worth it."""
        took_us = self._built.get(size)
        if took_us is None:
            return 0.0
        below = [
            (each, us)
            for each, us in tuple(self._built.items())
            if each < samples and us is not None and us < took_us
        ]
        rows, rows_us = max(below, default=(0, _FIXED * took_us))
        estimate_us = rows_us + (took_us - rows_us) * (samples - rows) / (size - rows)
        saved_us = took_us - estimate_us
        return saved_us if saved_us >= WORTH * took_us else 0.0

    def next_wanted(self) -> int | None:
        """Return what to build next: what would have saved most so far; None: nothing."""
        if len(self._built) >= _MOST_BUILT:
            return None
        wanted = [(saved, size) for size, saved in tuple(self._wanted.items())]
        return max(wanted)[1] if wanted else None


def halves(largest: int) -> Iterable[int]:
    """Return half of the largest size, half of that, and so on down to 1."""
    size = largest // 2
    while size >= 1:
        yield size
        size //= 2

"""Work on several models at a time, in threads: numpy lets others run while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def side_by_side(work: Callable[[int], T], count: int) -> list[T]:
    """Return what `work` makes of 0, 1, … count - 1, in that order; Ctrl-C does not wait for it."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        return list(pool.map(work, range(count)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

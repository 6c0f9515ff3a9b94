"""What a process keeps for its whole life is no concern of its garbage collector."""

from __future__ import annotations

import gc


def keep_loaded_objects() -> None:
    """Take all that is loaded out of garbage collection, and what is not loaded any more away.

    Packages leave hundreds of thousands of objects behind that live as long as the process; a full
    collection that walks them stops it for tens of milliseconds, with torch for more than 100.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()

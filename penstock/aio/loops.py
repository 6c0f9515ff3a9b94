"""Which event loop a process runs on: uvloop where it is installed, asyncio's own elsewhere.

Knows nothing of what runs on it.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

ASYNCIO = "asyncio"
UVLOOP = "uvloop"


def usual_loop(*, uvloop: bool = True) -> str:
    """Return the name of the loop to use.

    Args:
        uvloop: whether it may be that one.
    """
    return UVLOOP if uvloop and find_spec(UVLOOP) is not None else ASYNCIO


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Return a new event loop of a kind that `usual_loop` names."""
    if name == UVLOOP:
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()

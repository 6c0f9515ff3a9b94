"""One stream of requests: submitted as they come, answered in the order they came.

No task per request: a reader submits, a writer awaits the outcomes in turn. As many requests as a
stream may have are under way; then no more are read, and the transport holds the client back.
Knows nothing of gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from frontend.ingress import Outcome


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way.

    Attributes:
        answer: turns its outcome into an encoded answer.
    """

    outcome: asyncio.Future[Outcome]
    answer: Callable[[Outcome], bytes]


class Wire(Protocol):
    """The two directions of a stream."""

    async def read(self) -> bytes | None:
        """Return the next message; None at the end."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message."""
        ...


class Lane:
    """Answers one stream.

    Args:
        wire: the stream.
        ask: submits a message; returns it under way, or its answer if it has one at once, or None
            if it is none, and nothing that follows can be trusted.
        limit: requests that may be under way.
    """

    def __init__(
        self, wire: Wire, ask: Callable[[bytes], Asked | bytes | None], limit: int
    ) -> None:
        self._wire = wire
        self._ask = ask
        self._room = asyncio.Semaphore(limit)
        self._slots: asyncio.Queue[Asked | bytes | None] = asyncio.Queue()
        self._trusted = True

    async def run(self) -> bool:
        """Return when all is answered; whether the stream could be trusted to its end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())
                await self._write()
        finally:
            self._forget()
        return self._trusted

    async def _read(self) -> None:
        while (message := await self._next()) is not None:
            slot = self._ask(message)
            self._slots.put_nowait(slot)
            if slot is None:
                self._trusted = False
                return
        self._slots.put_nowait(None)

    async def _next(self) -> bytes | None:
        await self._room.acquire()
        return await self._wire.read()

    async def _write(self) -> None:
        while (slot := await self._slots.get()) is not None:
            answer = slot if isinstance(slot, bytes) else slot.answer(await slot.outcome)
            await self._wire.write(answer)
            self._room.release()

    def _forget(self) -> None:
        """Cancel what nobody will read the answer of."""
        while not self._slots.empty():
            slot = self._slots.get_nowait()
            if isinstance(slot, Asked):
                slot.outcome.cancel()

"""Links inside one process: who receives there, and what carries messages to them.

One process may hold several stage instances. Whoever puts them together makes one `Neighbours` and
gives it to their servers and senders; they then need no socket. Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.carriers import LinkKind, send_with_room
from penstock.rpc.inlet import Inlet


class Door(Protocol):
    """Where links come in."""

    def enter(self, sender: str, kind: LinkKind) -> Inlet:
        """Let a sender in, in place of an earlier link of the same sender."""
        ...

    def leave(self, inlet: Inlet) -> None:
        """Take the end of a link."""
        ...


class Neighbours:
    """The receivers of one event loop, by address."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}

    def add(self, address: str, door: Door) -> None:
        """Let others find a receiver."""
        self._doors[address] = door

    def remove(self, address: str) -> None:
        """Let nobody find it any more."""
        self._doors.pop(address, None)

    def find(self, address: str) -> Door | None:
        """Return the receiver at an address, if it is one of ours."""
        return self._doors.get(address)


class DirectCarrier:
    """Hands messages over: one copy, no system call.

    The copy is what makes it a link like any other: the sender may use its buffers again.

    Args:
        room: set when there is more room, and when the link has ended.
    """

    kind = LinkKind.SAME_PROCESS

    def __init__(self, door: Door, sender: str, room: asyncio.Event) -> None:
        self._door = door
        self._room = room
        self._inlet = door.enter(sender, self.kind)
        self._inlet.ended.add_done_callback(lambda _: room.set())
        self._loop = asyncio.get_running_loop()

    @property
    def held_bytes(self) -> Bytes:
        """Bytes that the receiver looks at."""
        return self._inlet.holdings.held_bytes

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the receiver takes no more."""
        return self._inlet.ended

    def room_for(self, size_bytes: Bytes) -> Bytes:
        """Return the size: any message may be handed over."""
        return size_bytes

    def send_now(self, parts: Sequence[Buffer]) -> bool:
        """Hand a message over, unless the receiver holds too much."""
        if self._inlet.ended.done() or self._inlet.holdings.full:
            return False
        message = self._inlet.holdings.lease(b"".join(parts), self._room.set)
        self._loop.call_soon(self._hand_over, message)
        return True

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Hand a message over as soon as the receiver has let go of enough."""
        await send_with_room(self, self._room, parts)

    def close(self) -> None:
        """Leave the receiver."""
        self._door.leave(self._inlet)

    def _hand_over(self, message: memoryview) -> None:
        try:
            self._inlet.take(message)
        except InvalidInput as error:
            self._inlet.end(str(error))

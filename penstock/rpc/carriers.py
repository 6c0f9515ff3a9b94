"""What carries the messages of a link from its sender: one Protocol, one class for each kind.

    kind            chosen when the receiver                    a message is
    same process    lives on the sender's event loop            handed over
    shared memory   could open what the sender's hello names    a region of shared memory, or
                                                                small and on a Unix socket
    CUDA IPC        could map the sender's device memory, too   as with shared memory; its tensors
                                                                may lie on the device
    gRPC            anything else                               one message of the gRPC stream

`shared_sender.py` has the second, `device_sender.py` the third. Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import grpc.aio

from penstock.domain.errors import PenstockError
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes

STREAM_CHUNK_BYTES = 1 << 20


class LinkLost(PenstockError):
    """A link could not be opened, or is open no more."""


class LinkFull(PenstockError):
    """The peer reads slower than frames are sent."""


class LinkKind(Enum):
    """How a link's bytes get to its receiver."""

    SAME_PROCESS = "same process"
    SHARED_MEMORY = "shared memory"
    CUDA_IPC = "CUDA IPC"
    STREAM = "gRPC"


class Carrier(Protocol):
    """The sending end of an open link. Messages arrive in the order they were sent."""

    @property
    def kind(self) -> LinkKind:
        """How the bytes travel."""
        ...

    @property
    def held_bytes(self) -> Bytes:
        """Bytes that were sent and that the receiver has not let go of, as far as is known."""
        ...

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when nothing can be sent any more; the result says why in words."""
        ...

    def room_for(self, size_bytes: Bytes) -> Bytes:
        """Return how much of so many bytes one message may carry; more than nothing.

        What a message of this size needs is there sooner or later: it never waits in vain.
        """
        ...

    def send_now(self, parts: Sequence[Buffer]) -> bool:
        """Send a message if that can be done without waiting; return whether it was.

        Args:
            parts: together no more than there is `room_for`; not looked at afterwards.
        """
        ...

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send a message as soon as there is room for it.

        Raises:
            LinkLost: the link has ended.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


async def send_with_room(carrier: Carrier, room: asyncio.Event, parts: Sequence[Buffer]) -> None:
    """Send a message as soon as there is room for it.

    Args:
        room: set by the carrier when there is more room, and when it has ended.

    Raises:
        LinkLost: the link has ended.
    """
    while not carrier.send_now(parts):
        if carrier.ended.done():
            raise LinkLost(carrier.ended.result())
        room.clear()
        await room.wait()


class StreamCarrier:
    """Sends messages over a gRPC stream, which belongs to somebody else and says how it ends."""

    kind = LinkKind.STREAM
    held_bytes: Bytes = 0

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def room_for(self, size_bytes: Bytes) -> Bytes:
        """Return how much of so many bytes one message may carry."""
        return min(size_bytes, STREAM_CHUNK_BYTES)

    def send_now(self, parts: Sequence[Buffer]) -> bool:
        """Return False: gRPC always waits."""
        del parts
        return False

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send a message; slow where the receiver is slow."""
        await self._call.write(b"".join(parts))

    def close(self) -> None:
        """Do nothing: whoever opened the stream closes it."""

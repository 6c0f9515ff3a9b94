"""Links through shared memory, the end that writes: the offer of a segment, and its use.

What is said is in `shared_wire.py`. Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.arena import Arena, Region
from penstock.rpc.carriers import LinkKind, send_with_room
from penstock.rpc.local_socket import check_user, listen
from penstock.rpc.segment import Segment
from penstock.rpc.shared_wire import (
    CAPACITY,
    GENERATION_BYTES,
    INLINE,
    INLINE_BYTES,
    RELEASES_AT_ONCE,
    STAMP_BYTES,
    Named,
    pack_named,
    read_generations,
    write_stamp,
)

CAPACITY_BYTES: Bytes = 64 << 20

_LARGEST_MESSAGES = 2  # so many of the largest messages fit into a segment

_log = logging.getLogger(__name__)


class SharedOffer:
    """A sender's offer: a segment, and a socket at which a receiver gets it.

    Args:
        more: goes with the segment, for who takes it.

    Raises:
        OSError: there is no memory, or no socket.
    """

    def __init__(self, capacity_bytes: Bytes = CAPACITY_BYTES, more: bytes = b"") -> None:
        self._more = more
        self._loop = asyncio.get_running_loop()
        self._connection: socket.socket | None = None
        self._segment: Segment | None = Segment(capacity_bytes)
        try:
            self.name, self._listener = listen()
        except OSError:
            self._segment.close()
            raise
        self._loop.add_reader(self._listener, self._accept)

    @property
    def connected(self) -> bool:
        """Whether somebody came for it."""
        return self._connection is not None

    def taken(self) -> tuple[socket.socket, Segment]:
        """Return what the receiver has, once it has said that it does.

        Raises:
            InvalidInput: nobody came for it.
        """
        if self._connection is None or self._segment is None:
            raise InvalidInput("link", "answer", "a receiver at the local socket", "nobody")
        taken = self._connection, self._segment
        self._connection = self._segment = None
        return taken

    def close(self) -> None:
        """Withdraw it; what was taken stays."""
        self._stop_listening()
        if self._connection is not None:
            self._connection.close()
        if self._segment is not None:
            self._segment.close()

    def _stop_listening(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        if self._segment is None:
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        try:
            check_user(connection)
            connection.setblocking(False)
            about = CAPACITY.pack(self._segment.capacity_bytes) + self._more
            socket.send_fds(connection, [about], [self._segment.file])
        except (OSError, InvalidInput) as error:
            _log.warning("shared memory was not handed out: %s", error)
            connection.close()
            return
        self._connection = connection
        self._stop_listening()


class SharedCarrier:
    """Writes messages into the segment, small ones onto the socket."""

    kind = LinkKind.SHARED_MEMORY

    def __init__(self, connection: socket.socket, segment: Segment, room: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._segment = segment
        self._room = room
        self._arena = Arena(segment.capacity_bytes)
        self._largest_bytes = segment.capacity_bytes // _LARGEST_MESSAGES - STAMP_BYTES
        self._stuffed = False
        self._short = False  # of memory, and said so
        self._closed = False
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(connection, self._hear)

    @property
    def held_bytes(self) -> Bytes:
        """Bytes of regions that the receiver has not given back."""
        return self._arena.held_bytes

    def room_for(self, size_bytes: Bytes) -> Bytes:
        """Return how much of so many bytes one message may carry."""
        if size_bytes <= INLINE_BYTES:
            return size_bytes
        wanted = min(size_bytes, self._largest_bytes)
        self._commit(wanted + STAMP_BYTES)
        there = self._segment.committed_bytes - STAMP_BYTES
        return max(INLINE_BYTES, min(wanted, there))

    def send_now(self, parts: Sequence[Buffer]) -> bool:
        """Send a message, if the socket takes it and there is a region for it."""
        if self._stuffed or self.ended.done():
            return False
        size = sum(map(len, parts))
        if size <= INLINE_BYTES:
            return self._say(b"".join((INLINE, *parts)))
        region = self._region(size + STAMP_BYTES)
        if region is None:
            return False
        named = Named(region.generation, region.start, size)
        self._write(named, parts)
        if self._say(pack_named(named)):
            return True
        self._arena.give_back(region.generation)
        return False

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send a message as soon as the receiver has given enough back."""
        await send_with_room(self, self._room, parts)

    def close(self) -> None:
        """Let go of socket and segment; the receiver keeps what it looks at."""
        if self._closed:
            return
        self._closed = True
        self._end("closed by us")
        self._hang_up()
        self._segment.close()

    def _hang_up(self) -> None:
        self._connection.close()

    def _take_back(self, generation: int) -> None:
        self._arena.give_back(generation)

    def _region(self, size: Bytes) -> Region | None:
        region = self._arena.take(size)
        if region is None or self._commit(region.end):
            return region
        self._arena.give_back(region.generation)
        self._arena.cap(self._segment.committed_bytes)
        return self._arena.take(size)

    def _commit(self, end: int) -> bool:
        """Make sure that there is memory; return whether there is."""
        try:
            self._segment.commit(end)
        except OSError as error:
            if not self._short:
                reason = error.strerror
                _log.warning("shared memory does not grow, the link is slower: %s", reason)
            self._short = True
            return False
        return True

    def _write(self, named: Named, parts: Sequence[Buffer]) -> None:
        view = self._segment.view
        write_stamp(named, view)
        start = named.start + STAMP_BYTES
        for part in filter(len, parts):
            view[start : start + len(part)] = memoryview(part).cast("B")
            start += len(part)

    def _say(self, message: bytes) -> bool:
        """Put a message onto the socket; return whether it took it."""
        try:
            self._connection.send(message)
        except BlockingIOError:
            self._stuffed = True
            self._loop.add_writer(self._connection, self._resume)
            return False
        except OSError as error:
            self._end(f"the receiver is gone: {error.strerror}")
            return False
        return True

    def _resume(self) -> None:
        self._loop.remove_writer(self._connection)
        self._stuffed = False
        self._room.set()

    def _hear(self) -> None:
        """Take regions back."""
        try:
            data = self._connection.recv(RELEASES_AT_ONCE * GENERATION_BYTES)
            if not data:
                self._end("the receiver is gone")
            for generation in read_generations(data):
                self._take_back(generation)
        except BlockingIOError:
            return
        except (OSError, InvalidInput) as error:
            self._end(str(error))
        self._room.set()

    def _end(self, reason: str) -> None:
        if self.ended.done():
            return
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self.ended.set_result(reason)
        self._room.set()

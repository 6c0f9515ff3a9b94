"""Links through shared memory, the end that reads: messages where the sender wrote them.

What is said is in `shared_wire.py`. Knows nothing of frames.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
from dataclasses import dataclass
from functools import partial

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes
from penstock.rpc.carriers import LinkKind
from penstock.rpc.inlet import Inlet
from penstock.rpc.local_socket import connect, readable, receive_file
from penstock.rpc.segment import LARGEST_BYTES, open_segment
from penstock.rpc.shared_wire import (
    CAPACITY,
    INLINE,
    LONGEST_BYTES,
    RELEASES_AT_ONCE,
    STAMP_BYTES,
    Named,
    check_stamp,
    pack_generations,
    read_named,
)

_PATIENCE_S = 3.0  # less than senders have; one that is busy starting is slow to answer
_MESSAGES_AT_ONCE = 64
_DRAIN_MESSAGES = 4096


@dataclass(frozen=True, slots=True)
class Offered:
    """What a sender's hello has led to.

    Attributes:
        more: what came with the segment.
    """

    connection: socket.socket
    segment: mmap.mmap
    more: bytes


async def fetch_offer(name: str, more_bytes: Bytes = 0) -> Offered:
    """Open what a sender's hello names.

    Args:
        name: of its socket.
        more_bytes: what comes with the segment.

    Raises:
        InvalidInput: it is not what a sender makes.
        OSError: it cannot be opened here: most likely the sender is on another host.
    """
    connection = connect(name)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await readable(connection)
        about, file = receive_file(connection, CAPACITY.size + more_bytes)
        (capacity,) = CAPACITY.unpack_from(about)
        segment = open_segment(file, min(capacity, LARGEST_BYTES))
        return Offered(connection, segment, about[CAPACITY.size :])
    except TimeoutError:
        connection.close()
        expected = f"a segment within {_PATIENCE_S:g} s"
        raise InvalidInput("link", "local socket", expected, "nothing") from None
    except BaseException:
        connection.close()
        raise


class SharedReader:
    """Reads messages where the sender wrote them.

    Attributes:
        kind: how a link is called that is read in this way.
        ended: done when the sender is gone, or has contradicted itself: then with what it said.
    """

    kind = LinkKind.SHARED_MEMORY

    def __init__(self, connection: socket.socket, segment: mmap.mmap) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._segment = memoryview(segment)
        self._generation = 0
        self._inlet: Inlet | None = None
        self._released: list[int] = []
        self._closed = False
        self.ended: asyncio.Future[InvalidInput | None] = self._loop.create_future()

    def start(self, inlet: Inlet) -> None:
        """Hand messages to an inlet from now on."""
        self._inlet = inlet
        inlet.holdings.on_room = self._listen
        self._listen()

    def close(self) -> None:
        """Hand over what was sent, and let go; what is looked at stays."""
        if self._closed:
            return
        self._closed = True
        if not self.ended.done() and self._inlet is not None:
            self._read(_DRAIN_MESSAGES)
        self._end()
        self._hang_up()
        # Not left to garbage collection: the segment goes with the last view that is looked at.
        self._segment = memoryview(b"")
        if self._inlet is not None:
            self._inlet.holdings.on_room = None
            self._inlet = None

    def _hang_up(self) -> None:
        self._connection.close()

    def _listen(self) -> None:
        if not self.ended.done():
            self._loop.add_reader(self._connection, self._read, _MESSAGES_AT_ONCE)

    def _end(self, fault: InvalidInput | None = None) -> None:
        if self.ended.done():
            return
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self.ended.set_result(fault)

    def _read(self, most: int) -> None:
        """Take messages until there are no more, the inlet holds enough, or so many are read."""
        try:
            while most and not self.ended.done() and self._read_one():
                most -= 1
        except BlockingIOError:
            return
        except OSError:
            self._end()
        except InvalidInput as error:
            self._end(error)
        except Exception:
            self._end()  # a frame is lost: so is the link
            raise

    def _read_one(self) -> bool:
        """Take one message; return whether to go on."""
        inlet = self._inlet
        if inlet is None:
            return False
        if inlet.holdings.full:
            self._loop.remove_reader(self._connection)
            return False
        data = self._connection.recv(LONGEST_BYTES + 1)
        if not data:
            self._end()
            return False
        self._take(inlet, data)
        return True

    def _take(self, inlet: Inlet, data: bytes) -> None:
        inlet.take(self._leased(inlet, data))

    def _leased(self, inlet: Inlet, data: bytes) -> memoryview:
        if data[:1] == INLINE and len(data) > 1:
            return inlet.holdings.lease(memoryview(data)[1:])
        named = read_named(data, self._generation, self._segment)
        self._generation = named.generation
        start = named.start + STAMP_BYTES
        view = self._segment[start : start + named.size]
        return inlet.holdings.lease(view, partial(self._release, named))

    def _release(self, named: Named) -> None:
        """Give a region back, with others of the same moment."""
        if self.ended.done():
            return
        try:
            check_stamp(named, self._segment)  # nobody wrote there while it was read
        except InvalidInput as error:
            self._end(error)
            return
        self._give_back(named.generation)

    def _give_back(self, generation: int) -> None:
        """Say that nobody looks at a region any more, unless nobody listens."""
        if self.ended.done():
            return
        if not self._released:
            self._loop.call_soon(self._tell_released)
        self._released.append(generation)

    def _tell_released(self) -> None:
        if self.ended.done():
            return
        while self._released:
            some = self._released[:RELEASES_AT_ONCE]
            try:
                self._connection.send(pack_generations(some))
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._tell_released)
                return
            except OSError:
                self._end()
                return
            del self._released[: len(some)]
        self._loop.remove_writer(self._connection)

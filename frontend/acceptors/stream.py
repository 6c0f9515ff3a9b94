"""One end of the pair of sockets over which dispatcher and acceptor exchange notices.

What is said in one turn of the event loop leaves in one write. Knows nothing of what is said.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias, cast

from frontend.acceptors.codec import Unpacker, pack
from penstock.domain.errors import InvalidInput
from protos.acceptors_pb2 import Notice

OnNotice: TypeAlias = Callable[[Notice], None]


class NoticeStream(asyncio.Protocol):
    """Sends and takes notices. Make it with `over`.

    Attributes:
        ended: why, once the stream has ended, however that came.
    """

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._unpacker = Unpacker()
        self._transport: asyncio.WriteTransport | None = None
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()

    @classmethod
    async def over(cls, end: socket.socket, on_notice: OnNotice) -> NoticeStream:
        """Return the stream of a connected socket, which becomes the stream's own.

        Args:
            end: one end of a pair.
            on_notice: called with each notice, in order. Must not block.
        """
        stream = cls(on_notice)
        await asyncio.get_running_loop().create_unix_connection(lambda: stream, sock=end)
        return stream

    def send(self, notice: Notice) -> None:
        """Send a notice at the end of this turn; after the end, nowhere."""
        if self.ended.done():
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pack(notice))

    def close(self) -> None:
        """End the stream; what was sent before still leaves."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what has come; whoever sends other things is not listened to any more."""
        try:
            for notice in self._unpacker.feed(data):
                self._on_notice(notice)
        except InvalidInput as error:
            self._end(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it has ended."""
        self._end(str(exc) if exc else "closed")

    def _end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
        if self._transport is not None:
            self._transport.abort()

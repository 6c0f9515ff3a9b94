"""One call: its messages on the way in, its answer and its status on the way out.

Knows neither sockets nor services: a session sends what is said here, and what kind of call it is
says how it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, TypeAlias
from urllib.parse import quote_from_bytes

import grpc

from penstock.domain.units import Bytes, Micros
from penstock.rpc.http2.connection import Connection
from penstock.rpc.http2.hpack import Header, write_headers
from penstock.rpc.http2.streams import Stream
from penstock.rpc.serving.head import CallHead, Metadata
from penstock.rpc.serving.messages import (
    MessageFault,
    MessageReader,
    MessageTooLong,
    prefix,
    prefixed,
)
from penstock.rpc.status import clipped

CallStream: TypeAlias = "Stream[Call]"
CallConnection: TypeAlias = "Connection[CallHead, Call]"

_TYPE = (b"content-type", b"application/grpc")
_BEGIN = write_headers(((b":status", b"200"), _TYPE))
_DONE = write_headers(((b"grpc-status", b"0"),))
UNREAD = "expected a client that reads its answers, found too many unread"
_UNQUOTED = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"  # what can be printed, except %
_WORTH_A_FRAME: Bytes = 1 << 16  # to copy so much costs more than a frame for what stands before it

# Some clients fail over a status that comes while they are sending.
PATIENCE_S = 0.01


class Session(Protocol):
    """What calls of one connection have in common."""

    connection: CallConnection

    def now_s(self) -> float:
        """Return the event loop's time."""
        ...

    def later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so many seconds."""
        ...

    def flush_soon(self) -> None:
        """Send what the connection has to say."""
        ...

    def hold(self, size: Bytes) -> bool:
        """Count bytes that wait to be used, or fewer again; return whether there is room."""
        ...

    def room_for(self, size: Bytes) -> bool:
        """Return whether so many bytes of an answer may wait until the client reads."""
        ...

    @property
    def behind(self) -> bool:
        """Whether the client reads nothing of much that it has asked for."""
        ...

    def when_read(self, number: int, begin: Callable[[], None]) -> None:
        """Call back when the client reads.

        Args:
            number: of the stream.
        """
        ...

    def never_mind(self, number: int) -> None:
        """Do not call back; if that was wanted at all."""
        ...

    async def drained(self) -> None:
        """Return when the transport takes more."""
        ...


class Call:
    """A call from its head to its status, of which exactly one is sent.

    Attributes:
        over: the status was sent, or nobody waits for it any more.
    """

    def __init__(
        self, session: Session, stream: CallStream, head: CallHead, limit_bytes: Bytes
    ) -> None:
        self._session = session
        self._stream = stream
        self._head = head
        self._reader = MessageReader(limit_bytes, head.encoding)
        self._held_bytes = 0
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s: float | None = None
        self.over = False
        if head.timeout_us is not None:
            self._limit_time(head.timeout_us)

    def _limit_time(self, timeout_us: Micros) -> None:
        timeout_s = timeout_us / 1e6
        self._deadline_s = self._session.now_s() + timeout_s
        self._timer = self._session.later(timeout_s, self._expire)

    def _expire(self) -> None:
        self.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")

    # What a handler may ask

    def time_remaining(self) -> float | None:
        """Return for how many seconds the client will wait; None if it did not say."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - self._session.now_s())

    def invocation_metadata(self) -> Metadata:
        """Return what the client said of its own."""
        return self._head.metadata

    # What comes

    def received(self, data: bytes | memoryview, *, ended: bool) -> None:
        """Take a part of the call's messages; `ended`: the last."""
        try:
            messages = self._reader.feed(data)
        except MessageFault as fault:
            self.refuse(fault_status(fault), str(fault))
        else:
            self._take(messages, len(data), ended=ended)

    def _take(self, messages: list[bytes], size: Bytes, *, ended: bool) -> None:
        """Take the messages that are complete now that so many bytes more have come."""

    def _hold(self, held_bytes: Bytes) -> bool:
        """Say what the call holds now; False: too much, and it is over."""
        more, self._held_bytes = held_bytes - self._held_bytes, held_bytes
        if not more or self._session.hold(more) or more < 0:
            return True
        details = "expected requests one at a time, found more unfinished ones than fit in memory"
        self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        return False

    def abandon(self) -> None:
        """Do nothing more for it: the client gave it up."""
        self._end()
        self._drop_work()

    def _drop_work(self) -> None:
        """Cancel what is done for the call."""

    # What goes

    def say(self, message: bytes) -> None:
        """Send a message, unless the call is over."""
        if self.over:
            return
        if not self._session.room_for(len(message)):
            self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, UNREAD)
            return
        connection, stream = self._session.connection, self._stream
        if not self._begun:
            self._begun = True
            connection.send_headers(stream, _BEGIN)
        if len(message) < _WORTH_A_FRAME:
            connection.send(stream, prefixed(message))
        else:
            connection.send(stream, prefix(message))
            connection.send(stream, message)
        self._session.flush_soon()

    def finish(self) -> None:
        """End the call well."""
        if not self.over:
            self._send_last(_DONE if self._begun else _BEGIN + _DONE)

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with a status, and whatever is done for it."""
        if self.over:
            return
        number = int(code.value[0])
        status: tuple[Header, ...] = (
            (b"grpc-status", str(number).encode()),
            (b"grpc-message", _quoted(details)),
        )
        self._send_last(write_headers(status) if self._begun else _BEGIN + write_headers(status))
        self._drop_work()

    def refuse_http(self, status: HTTPStatus) -> None:
        """End what is no call of gRPC."""
        self._send_last(write_headers(((b":status", str(int(status)).encode()),)))

    def _send_last(self, block: bytes) -> None:
        self._session.connection.finish(self._stream, block)
        self._session.flush_soon()
        self._end()

    def _end(self) -> None:
        self.over = True
        self._stream.call = None  # else the two, and all they hold, wait for garbage collection
        if self._timer is not None:
            self._timer.cancel()
        if self._held_bytes:
            self._session.hold(-self._held_bytes)
            self._held_bytes = 0


def fault_status(fault: MessageFault) -> grpc.StatusCode:
    """Return the status that tells a client what is wrong with its message."""
    if isinstance(fault, MessageTooLong):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return grpc.StatusCode.INVALID_ARGUMENT


def _quoted(details: str) -> bytes:
    return quote_from_bytes(clipped(details).encode(), _UNQUOTED).encode()

"""One client's connection on the event loop: bytes in, bytes out, and when to give up.

Knows the transport and how much of a client's data may wait; nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

import grpc

from penstock.domain.units import Bytes
from penstock.rpc.http2.connection import Connection, Limits
from penstock.rpc.serving.call import UNREAD, Call, CallConnection, CallStream
from penstock.rpc.serving.head import CallHead, read_head
from penstock.rpc.serving.messages import ENCODINGS
from penstock.rpc.serving.refused import RefusedCall

_HIGH_WATER_BYTES = 1 << 20
# What a connection may send in one turn of the loop: others want to be heard, too.
_TURN_BYTES = 1 << 19
_READS_S = 1.0  # a client that reads makes room more often
_MUCH_OUTPUT_BYTES = 2 << 20  # a client that asks for more before it was sent is not heard
# There asyncio's `writelines` never pauses a writer (CVE-2024-12254).
_WRITES_WITHOUT_PAUSE = (3, 12) <= sys.version_info < (3, 12, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What one client may do.

    Attributes:
        message_bytes: largest message.
        held_bytes: of unfinished requests, and of answers for which the client makes no room.
        unread_bytes: of such answers; further calls of a client that reads nothing wait.
        silence_s: after this long without a byte the client is asked whether it is there; after as
            long again without an answer its connection is closed.
    """

    message_bytes: Bytes
    held_bytes: Bytes
    unread_bytes: Bytes = 4 << 20
    silence_s: float = 30.0


class Switchboard(Protocol):
    """Who knows all methods, and all sessions."""

    limits: SessionLimits

    def joined(self, session: Session) -> None:
        """A client has connected."""
        ...

    def parted(self, session: Session) -> None:
        """Its connection has ended."""
        ...

    def new_call(self, session: Session, stream: CallStream, head: CallHead) -> Call | None:
        """Return a call of a method; None if there is no such method."""
        ...


class Session(asyncio.Protocol):
    """A connection; the sink of what it says."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard
        self._limits = switchboard.limits
        self._loop = asyncio.get_running_loop()
        self.connection: CallConnection = Connection(self, read_head, Limits())
        self._transport: asyncio.Transport | None = None
        self._held_bytes = 0
        self._left_bytes = 0  # to send, when we last looked
        self._flushing = False
        self._reading = True
        self._heard = True
        self._full: asyncio.Future[None] | None = None
        self._behind: dict[int, Callable[[], None]] = {}  # calls that wait until it reads
        self._read_s = 0.0  # when the client last made room for what waits
        self._watch: asyncio.TimerHandle | None = None
        self.now_s = self._loop.time

    # What calls want

    def later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so many seconds."""
        return self._loop.call_later(delay_s, callback)

    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop what the connection has to say."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def hold(self, size: Bytes) -> bool:
        """Count bytes that wait to be used; return whether there is room."""
        self._held_bytes += size
        return self._held_bytes <= self._limits.held_bytes

    def room_for(self, size: Bytes) -> bool:
        """Return whether so many bytes of an answer may wait until the client reads."""
        connection = self.connection
        waiting = connection.queued_bytes + connection.output_bytes + self._in_transport()
        return size + waiting <= self._limits.held_bytes

    @property
    def behind(self) -> bool:
        """Whether the client reads nothing of much that it has asked for."""
        unread = self.connection.queued_bytes > self._limits.unread_bytes
        return unread and self.now_s() - self._read_s > _READS_S

    def when_read(self, number: int, begin: Callable[[], None]) -> None:
        """Call back when the client reads."""
        self._behind[number] = begin

    def never_mind(self, number: int) -> None:
        """Do not call back."""
        self._behind.pop(number, None)

    async def drained(self) -> None:
        """Return when the transport takes more."""
        while self._full is not None or self.connection.output_bytes > _HIGH_WATER_BYTES:
            if self._full is not None:
                await asyncio.shield(self._full)
            else:
                await asyncio.sleep(0)  # a part of it leaves in each turn

    # What the server wants

    def leave(self) -> None:
        """Take no new calls; close when those that are open are over."""
        self.connection.leave()
        self.flush_soon()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._switchboard.joined(self)
        self._watch = self.later(self._limits.silence_s, self._listen)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._heard = True
        unread_bytes = self.connection.queued_bytes
        self.connection.receive(data)
        if self.connection.queued_bytes < unread_bytes:
            self._note_reading()
        if self.connection.has_output or self.connection.over:
            self.flush_soon()
            self._read_or_wait()

    def _note_reading(self) -> None:
        """Go on with the calls of a client that has made some room."""
        self._read_s = self.now_s()
        while self._behind:
            self._behind.pop(next(iter(self._behind)))()

    def pause_writing(self) -> None:
        """Take nothing more from a client that does not read."""
        self._full = self._loop.create_future()
        self._read_or_wait()

    def resume_writing(self) -> None:
        """Go on."""
        self._heard = True  # so to speak: it reads
        full, self._full = self._full, None
        if full is not None:
            full.set_result(None)
        self.flush_soon()
        self._read_or_wait()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Give up all calls."""
        self._transport = None
        self._switchboard.parted(self)
        if self._watch is not None:
            self._watch.cancel()
        for stream in self.connection.open_streams:
            if stream.call is not None:
                stream.call.abandon()
        self.connection.forget()
        self.resume_writing()

    def _flush(self) -> None:
        """Send as much as is this connection's turn, unless the client does not read."""
        self._flushing = False
        transport, connection = self._transport, self.connection
        if transport is None or transport.is_closing():
            connection.take_output()
            return
        if self._full is None and connection.has_output:
            _write(transport, connection.take_output(_TURN_BYTES))
        self._read_or_wait()
        if connection.has_output and self._full is None:
            self.flush_soon()
        elif connection.over and not connection.has_output:
            transport.close()

    def _read_or_wait(self) -> None:
        """Read no further while too much waits to be sent: what is asked makes it more."""
        wanted = self._full is None and self.connection.output_bytes <= _MUCH_OUTPUT_BYTES
        transport = self._transport
        if wanted == self._reading or transport is None or transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _in_transport(self) -> Bytes:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _listen(self) -> None:
        """Ask a silent client whether it is there, and give up one that does not answer."""
        self._note_progress()
        silent = not self._heard and not self.connection.heard_pong
        if silent or not self.connection.greeted:
            self.abort()
            return
        if not self._heard:
            self.connection.ping()
            self.flush_soon()
        self._heard = False
        self._watch = self.later(self._limits.silence_s, self._listen)

    def _note_progress(self) -> None:
        """Take what a client has read for a sign of life: one that reads slowly is not heard."""
        left = self._in_transport()
        self._heard = self._heard or left < self._left_bytes
        self._left_bytes = left

    # What the connection says

    def opened(self, stream: CallStream, head: CallHead, *, ended: bool) -> None:
        """Begin a call."""
        call = self._begun(stream, head)
        stream.call = None if call.over else call
        if ended and not call.over:
            call.received(b"", ended=True)

    def received(self, stream: CallStream, data: bytes | memoryview, *, ended: bool) -> None:
        """Hand on a part of a call."""
        call = stream.call
        if call is not None and not call.over:
            call.received(data, ended=ended)

    def reset(self, stream: CallStream) -> None:
        """Give up a call that the client gave up."""
        if stream.call is not None:
            stream.call.abandon()

    def _begun(self, stream: CallStream, head: CallHead) -> Call:
        refusal = self._refusal(head)
        call = None if refusal else self._switchboard.new_call(self, stream, head)
        if call is not None:
            return call
        return RefusedCall(self, stream, head, *(refusal or _unknown(head)))

    def _refusal(self, head: CallHead) -> tuple[grpc.StatusCode, str] | None:
        """Return why a call cannot be taken, whatever it is."""
        if head.http_status is not HTTPStatus.OK:
            return grpc.StatusCode.INTERNAL, "expected a call of gRPC"
        if head.timeout_fault:
            details = f"grpc-timeout: expected digits and one of HMSmun, found {head.timeout_fault}"
            return grpc.StatusCode.INVALID_ARGUMENT, details
        if head.encoding not in ENCODINGS:
            details = (
                f"grpc-encoding: expected one of {', '.join(ENCODINGS)}, found {head.encoding}"
            )
            return grpc.StatusCode.UNIMPLEMENTED, details
        if self.connection.queued_bytes > self._limits.held_bytes:
            return grpc.StatusCode.RESOURCE_EXHAUSTED, UNREAD
        return None


def _write(transport: asyncio.Transport, output: list[bytes | memoryview]) -> None:
    if _WRITES_WITHOUT_PAUSE:
        transport.write(b"".join(output))
    else:
        transport.writelines(output)


def _unknown(head: CallHead) -> tuple[grpc.StatusCode, str]:
    return grpc.StatusCode.UNIMPLEMENTED, f"expected a method of this server, found {head.path}"

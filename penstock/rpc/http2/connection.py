"""The server's end of one HTTP/2 connection (RFC 9113), without I/O.

Bytes go in by `receive`, what they mean goes to the sink at once, and `take_output` returns what is
to be sent. Knows frames, windows and the order they may come in; nothing of gRPC, sockets or time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.domain.units import Bytes
from penstock.rpc.http2 import frames
from penstock.rpc.http2.blocks import Block, BlockAssembler
from penstock.rpc.http2.cutter import FrameCutter
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode
from penstock.rpc.http2.hpack import HeaderReader, Headers
from penstock.rpc.http2.outgoing import Outgoing
from penstock.rpc.http2.streams import Call, Stream
from penstock.rpc.http2.terms import Limits, Sink

__all__ = ["Connection", "Limits", "Sink"]

Head = TypeVar("Head")

# To resize windows every stream is visited. A client has so many visits, and more with each stream
# it opens: settings sent again and again would cost us thousands of times what they cost it.
_VISITS = 1_000_000
_VISITS_BY_STREAM = 64


class Connection(Generic[Head, Call]):
    """A connection from its first byte to its last.

    Args:
        sink: is told what comes.
        understand: turns headers into what the sink is told.

    Attributes:
        ended: nothing more may be received; what is left to send says why.
        heard_pong: whether the last `ping` was answered.
    """

    def __init__(
        self, sink: Sink[Head, Call], understand: Callable[[Headers], Head], limits: Limits
    ) -> None:
        self._sink = sink
        self._limits = limits
        self._cutter = FrameCutter(self, limits.frame_bytes)
        self._blocks = BlockAssembler(limits.header_bytes)
        self._reader = HeaderReader(understand, limits.header_bytes)
        self._streams: dict[int, Stream[Call]] = {}
        self._last_number = 0
        self._leaving = False
        # The stream of a data frame that was begun, None if it is over; whether it ends with that.
        self._begun: tuple[Stream[Call] | None, bool] = (None, False)
        self._receive_room = limits.connection_window_bytes
        self._new_stream_room = frames.USUAL_WINDOW
        self._visits = _VISITS
        self._outgoing: Outgoing[Call] = Outgoing(self._forget)
        self._outgoing.write(self._greeting())
        self.ended = False
        self.heard_pong = True

    def _greeting(self) -> bytes:
        limits = self._limits
        settings = frames.settings_frame(
            (
                (frames.MAX_CONCURRENT_STREAMS, limits.streams),
                (frames.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (frames.MAX_FRAME_SIZE, limits.frame_bytes),
                (frames.MAX_HEADER_LIST_SIZE, limits.header_bytes),
            )
        )
        more = limits.connection_window_bytes - frames.USUAL_WINDOW
        return settings + frames.window_update(0, more)

    @property
    def greeted(self) -> bool:
        """Whether the peer has said that it speaks HTTP/2."""
        return self._cutter.greeted

    @property
    def open_streams(self) -> list[Stream[Call]]:
        """The streams that are not over."""
        return list(self._streams.values())

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more, once the output is sent."""
        return self.ended or (self._leaving and not self._streams)

    @property
    def queued_bytes(self) -> Bytes:
        """Data that waits for the peer to make room."""
        return self._outgoing.queued_bytes

    # What is to be sent

    @property
    def has_output(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._outgoing)

    @property
    def output_bytes(self) -> Bytes:
        """How much that is."""
        return self._outgoing.output_bytes

    def take_output(self, enough_bytes: Bytes = sys.maxsize) -> list[bytes | memoryview]:
        """Return what is to be sent, once, in order.

        Args:
            enough_bytes: when it is so many, what is left is kept for another time.
        """
        return self._outgoing.take(enough_bytes)

    def send_headers(self, stream: Stream[Call], block: bytes) -> None:
        """Begin an answer."""
        self._outgoing.begin(stream, block)

    def send(self, stream: Stream[Call], data: bytes | memoryview) -> None:
        """Send a part of an answer as soon as the peer has room for it; the stream is not over."""
        self._outgoing.send(stream, data)

    def finish(self, stream: Stream[Call], trailers: bytes) -> None:
        """End an answer, after all data that waits."""
        self._outgoing.finish(stream, trailers)

    def reset(self, stream: Stream[Call], code: ErrorCode) -> None:
        """Give a stream up."""
        if stream.number in self._streams:
            self._outgoing.write(frames.reset_frame(stream.number, code))
            self._forget(stream)

    def grant(self, stream: Stream[Call], size: Bytes) -> None:
        """Let the peer send as many bytes again as were received."""
        stream.owed += size
        if stream.remote_open and stream.owed * 2 >= self._limits.stream_window_bytes:
            self._outgoing.write(frames.window_update(stream.number, stream.owed))
            stream.receive_room += stream.owed
            stream.owed = 0

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.heard_pong = False
        self._outgoing.write(frames.frame(frames.PING, 0, 0, bytes(frames.PING_BYTES)))

    def leave(self) -> None:
        """Take no new streams; those that are open go on."""
        if not self._leaving:
            self._leaving = True
            self._outgoing.write(frames.goaway_frame(self._last_number, ErrorCode.NO_ERROR))

    def forget(self) -> None:
        """Let go of everything: the peer is gone, and garbage collection may be long in coming."""
        self.ended = True
        for stream in self.open_streams:
            self._forget(stream)
        self._begun = (None, False)
        self.take_output()
        self._cutter.forget()

    def _forget(self, stream: Stream[Call]) -> None:
        self._streams.pop(stream.number, None)
        self._outgoing.forget(stream)
        stream.remote_open = False

    # What was received

    def receive(self, data: bytes) -> None:
        """Take bytes; whoever breaks the protocol is told so, and `ended` is set."""
        if self.ended:
            return
        try:
            self._cutter.receive(data)
        except ConnectionFault as fault:
            self.ended = True
            last_words = frames.goaway_frame(self._last_number, fault.code, fault.reason)
            self._outgoing.write(last_words)

    def take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame.

        Raises:
            ConnectionFault: it may not come now, or not at all.
        """
        self._blocks.check(kind, number)
        take = _TAKE.get(kind)
        if take is not None:
            _check_place(kind, number)
            take(self, flags, number, payload)

    def begin_data(self, flags: int, number: int, length: Bytes) -> None:
        """Take the beginning of a large data frame, so that its data need not be put together.

        Raises:
            ConnectionFault: it may not come now.
        """
        self._blocks.check(frames.DATA, number)
        _check_place(frames.DATA, number)
        self._begun = self._receiving(number, length), bool(flags & frames.END_STREAM)

    def take_part(self, part: memoryview, *, last: bool) -> None:
        """Take a part of that frame."""
        stream, ended = self._begun
        if stream is not None and self._streams.get(stream.number) is stream:
            self._hand_on(stream, part, ended=ended and last)
        if last:
            self._begun = (None, False)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._receiving(number, len(payload))
        data = frames.unpadded(payload, flags) if flags & frames.PADDED else payload
        if stream is None:
            return
        padding = len(payload) - len(data)
        if padding:
            self.grant(stream, padding)
        self._hand_on(stream, data, ended=bool(flags & frames.END_STREAM))

    def _hand_on(self, stream: Stream[Call], data: bytes | memoryview, *, ended: bool) -> None:
        if ended:
            stream.remote_open = False
        self._sink.received(stream, data, ended=ended)

    def _receiving(self, number: int, size: Bytes) -> Stream[Call] | None:
        """Count data against the windows; None if its stream is over, and it is let fall."""
        self._receive_room -= size
        if self._receive_room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than was allowed")
        self._widen()
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return None
        if not stream.remote_open:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "data after the end of a stream")
        stream.receive_room -= size
        if stream.receive_room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than was allowed")
        return stream

    def _widen(self) -> None:
        """Let the peer go on: what a connection holds is bounded by the sink, stream by stream."""
        whole = self._limits.connection_window_bytes
        if self._receive_room * 2 < whole:
            self._outgoing.write(frames.window_update(0, whole - self._receive_room))
            self._receive_room = whole

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        self._take_block(self._blocks.begin(flags, number, payload))

    def _take_continuation(self, flags: int, _number: int, payload: bytes) -> None:
        self._take_block(self._blocks.go_on(flags, payload))

    def _take_block(self, block: Block | None) -> None:
        """Take all headers of a request, or its trailers, which say nothing; None: not all yet."""
        if block is None:
            return
        head = self._reader.read(block.data)  # also where it is not wanted: the table must agree
        stream = self._streams.get(block.number)
        if stream is not None:
            self._take_trailers(stream, block)
        elif block.number > self._last_number:
            self._open(block, head)

    def _take_trailers(self, stream: Stream[Call], block: Block) -> None:
        if not stream.remote_open:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "headers after the end of a stream")
        if not block.ended:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a second block of headers")
        self._hand_on(stream, b"", ended=True)

    def _open(self, block: Block, head: Head | None) -> None:
        number = block.number
        if not number % 2:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client's stream numbered {number}")
        if self._leaving or len(self._streams) >= self._limits.streams:
            self._refuse(number, ErrorCode.REFUSED_STREAM)
            return
        if head is None:
            self._refuse(number, ErrorCode.ENHANCE_YOUR_CALM)
            return
        self._last_number = number
        self._visits += _VISITS_BY_STREAM
        window = self._limits.stream_window_bytes
        stream: Stream[Call] = Stream(
            number, self._new_stream_room, window, remote_open=not block.ended
        )
        self._streams[number] = stream
        self._sink.opened(stream, head, ended=block.ended)

    def _refuse(self, number: int, code: ErrorCode) -> None:
        self._last_number = self._last_number if self._leaving else number
        self._outgoing.write(frames.reset_frame(number, code))

    def _take_reset(self, _flags: int, number: int, payload: bytes) -> None:
        frames.read_number(payload, "RST_STREAM")
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        self._forget(stream)
        self._sink.reset(stream)

    def _take_settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload:
                raise frames.size_fault("acknowledged SETTINGS", "0", len(payload))
            return
        before = self._new_stream_room
        for identifier, value in frames.read_settings(payload):
            self._set(identifier, value)
        self._outgoing.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if self._new_stream_room > before:
            self._pump_all()

    def _pump_all(self) -> None:
        for stream in self.open_streams:
            if stream.unsent:
                self._outgoing.pump(stream)

    def _set(self, identifier: int, value: int) -> None:
        if identifier == frames.HEADER_TABLE_SIZE:
            # Nothing is ever put there, but a peer may want to hear that this is known.
            self._outgoing.table_resized = True
        elif identifier == frames.INITIAL_WINDOW_SIZE:
            self._resize_windows(value)
        elif identifier == frames.MAX_FRAME_SIZE:
            if not frames.USUAL_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self._outgoing.limit_frames(value)
        elif identifier == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")

    def _resize_windows(self, size: int) -> None:
        if size > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {size} bytes")
        more = size - self._new_stream_room
        self._new_stream_room = size
        self._visits -= len(self._streams)
        if self._visits < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "windows are resized all the time")
        for stream in self._streams.values():
            stream.send_room += more
            if stream.send_room > frames.LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window grows too large")

    def _take_ping(self, flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != frames.PING_BYTES:
            raise frames.size_fault("PING", str(frames.PING_BYTES), len(payload))
        if flags & frames.ACK:
            self.heard_pong = True
        else:
            self._outgoing.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _take_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        more = frames.read_increment(payload)
        if number:
            self._widen_stream(number, more)
            return
        self._outgoing.widen(more)

    def _widen_stream(self, number: int, more: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        stream.send_room += more
        if more and stream.send_room <= frames.LARGEST_WINDOW:
            self._outgoing.pump(stream)
            return
        self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR if more else ErrorCode.PROTOCOL_ERROR)
        self._sink.reset(stream)

    def _take_priority(self, _flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != frames.PRIORITY_BYTES:
            raise frames.size_fault("PRIORITY", str(frames.PRIORITY_BYTES), len(payload))

    def _take_goaway(self, _flags: int, _number: int, _payload: bytes) -> None:
        """Go on: it says which of our streams the peer still answers, and there are none."""

    def _take_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client promises no pushes")

    def _check_not_idle(self, number: int) -> None:
        if number > self._last_number and not self._leaving:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} was never opened")


_TAKE = {
    frames.DATA: Connection._take_data,
    frames.HEADERS: Connection._take_headers,
    frames.PRIORITY: Connection._take_priority,
    frames.RST_STREAM: Connection._take_reset,
    frames.SETTINGS: Connection._take_settings,
    frames.PUSH_PROMISE: Connection._take_push_promise,
    frames.PING: Connection._take_ping,
    frames.GOAWAY: Connection._take_goaway,
    frames.WINDOW_UPDATE: Connection._take_window_update,
    frames.CONTINUATION: Connection._take_continuation,
}
_ON_CONNECTION = frozenset({frames.SETTINGS, frames.PING, frames.GOAWAY})
_ON_EITHER = frozenset({frames.WINDOW_UPDATE})


def _check_place(kind: int, number: int) -> None:
    """Check that a frame is on a stream, or on none, as its kind wants."""
    if kind not in _ON_EITHER and (number == 0) != (kind in _ON_CONNECTION):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"frame {kind} on stream {number}")

"""The server's end of one HTTP/2 connection (RFC 9113), without I/O.

Bytes go in by `receive`, what they mean goes to the sink at once, and `take_output` returns what is
to be sent. Knows frames, windows and the order they may come in; nothing of gRPC, sockets or time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from penstock.domain.units import Bytes
from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode
from penstock.rpc.http2.hpack import NO_TABLE, HeaderReader, Headers
from penstock.rpc.http2.streams import Call, Stream

Head = TypeVar("Head")
Told_contra = TypeVar("Told_contra", contravariant=True)


class Sink(Protocol[Told_contra, Call]):
    """Who uses a connection. Each method is called while bytes are received, and must not block."""

    def opened(self, stream: Stream[Call], head: Told_contra, *, ended: bool) -> None:
        """A request has begun; `ended`: and has no body."""
        ...

    def received(self, stream: Stream[Call], data: bytes | memoryview, *, ended: bool) -> None:
        """A part of the body has come. The sink grants it again: `Connection.grant`."""
        ...

    def reset(self, stream: Stream[Call]) -> None:
        """The peer gave the stream up; it is forgotten already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may do.

    Attributes:
        streams: open at a time.
        stream_window_bytes, connection_window_bytes: data under way to us.
        frame_bytes: largest frame.
        header_bytes: of one request, names and values, with 32 for each.
    """

    streams: int = 20_000
    stream_window_bytes: Bytes = 4 << 20
    connection_window_bytes: Bytes = 16 << 20
    frame_bytes: Bytes = 1 << 20
    header_bytes: Bytes = 16 << 10


# A data frame that came in part is handed on at once if it is large; others are waited for.
_WORTH_PARTS = 1 << 16
# A block of headers this many times as long as the limit ends the connection. A shorter one that
# is too long ends its stream: it must be read nevertheless, since the table must agree.
_BLOCK_SLACK = 4
# The first frame's kind follows the preface and the frame's length.
_KIND_AT = len(frames.PREFACE) + 3
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
        greeted: whether the peer has said that it speaks HTTP/2.
        ended: nothing more may be received; what is left to send says why.
        heard_pong: whether the last `ping` was answered.
        queued_bytes: data that waits for the peer to make room.
    """

    def __init__(
        self, sink: Sink[Head, Call], understand: Callable[[Headers], Head], limits: Limits
    ) -> None:
        self._sink = sink
        self._limits = limits
        self._reader = HeaderReader(understand, limits.header_bytes)
        self._streams: dict[int, Stream[Call]] = {}
        # Those that wait for room on the connection and have room of their own, longest first.
        self._blocked: OrderedDict[int, Stream[Call]] = OrderedDict()
        self._last_number = 0
        self._rest = bytearray()
        self._wanted_bytes = 0  # to go on from `_rest`
        self._leaving = False
        self._block: _OpenBlock | None = None
        self._part: _OpenData[Call] | None = None
        self._receive_room = limits.connection_window_bytes
        self._send_room = frames.USUAL_WINDOW
        self._new_stream_room = frames.USUAL_WINDOW
        self._frame_bytes = frames.USUAL_FRAME
        self._table_resized = False
        self._visits = _VISITS
        self._output: list[bytes | memoryview] = [self._greeting()]
        self.greeted = False
        self.ended = False
        self.heard_pong = True
        self.queued_bytes = 0

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
    def open_streams(self) -> list[Stream[Call]]:
        """The streams that are not over."""
        return list(self._streams.values())

    # What is to be sent

    def take_output(self) -> list[bytes | memoryview]:
        """Return what is to be sent, once."""
        taken, self._output = self._output, []
        return taken

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more, once the output is sent."""
        return self.ended or (self._leaving and not self._streams)

    @property
    def has_output(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._output)

    def send_headers(self, stream: Stream[Call], block: bytes) -> None:
        """Begin an answer."""
        self._write_block(stream, block, frames.END_HEADERS)

    def send(self, stream: Stream[Call], data: bytes | memoryview) -> None:
        """Send a part of an answer as soon as the peer has room for it; the stream is not over."""
        if not stream.unsent and self._fits(stream, len(data)):
            self._emit(stream, data)
            return
        stream.unsent.append(memoryview(data))
        self.queued_bytes += len(data)
        self._pump(stream)

    def finish(self, stream: Stream[Call], trailers: bytes) -> None:
        """End an answer, after all data that waits."""
        if stream.unsent:
            stream.trailers = trailers
        else:
            self._close(stream, trailers)

    def reset(self, stream: Stream[Call], code: ErrorCode) -> None:
        """Give a stream up."""
        if stream.number in self._streams:
            self._output.append(frames.reset_frame(stream.number, code))
            self._forget(stream)

    def grant(self, stream: Stream[Call], size: Bytes) -> None:
        """Let the peer send as many bytes again as were received."""
        stream.owed += size
        if stream.remote_open and stream.owed * 2 >= self._limits.stream_window_bytes:
            self._output.append(frames.window_update(stream.number, stream.owed))
            stream.receive_room += stream.owed
            stream.owed = 0

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.heard_pong = False
        self._output.append(frames.frame(frames.PING, 0, 0, bytes(frames.PING_BYTES)))

    def leave(self) -> None:
        """Take no new streams; those that are open go on."""
        if not self._leaving:
            self._leaving = True
            self._output.append(frames.goaway_frame(self._last_number, ErrorCode.NO_ERROR))

    def _write_block(self, stream: Stream[Call], block: bytes, flags: int) -> None:
        if self._table_resized:
            self._table_resized = False
            block = NO_TABLE + block
        header = frames.frame_header(len(block), frames.HEADERS, flags, stream.number)
        self._output.append(header + block)

    def _fits(self, stream: Stream[Call], size: int) -> bool:
        return size <= stream.send_room and size <= self._send_room and size <= self._frame_bytes

    def _emit(self, stream: Stream[Call], data: bytes | memoryview) -> None:
        size = len(data)
        stream.send_room -= size
        self._send_room -= size
        self._output.append(frames.frame_header(size, frames.DATA, 0, stream.number))
        self._output.append(data)

    def _pump(self, stream: Stream[Call]) -> None:
        """Send what there is room for."""
        while stream.unsent:
            room = min(stream.send_room, self._send_room, self._frame_bytes)
            if room <= 0:
                self._wait(stream)
                return
            data = stream.unsent.popleft()
            if len(data) > room:
                stream.unsent.appendleft(data[room:])
            self._emit(stream, data[:room])
            self.queued_bytes -= min(len(data), room)
        self._blocked.pop(stream.number, None)
        stream.tell_drained()
        if stream.trailers is not None:
            self._close(stream, stream.trailers)

    def _wait(self, stream: Stream[Call]) -> None:
        """Let a stream stand in line, unless no room on the connection would help it."""
        if stream.send_room > 0:
            self._blocked[stream.number] = stream
        else:
            self._blocked.pop(stream.number, None)

    def _pump_blocked(self) -> None:
        while self._blocked and self._send_room > 0:
            # Whoever is blocked again stands at the end of the line.
            _, stream = self._blocked.popitem(last=False)
            self._pump(stream)

    def _close(self, stream: Stream[Call], trailers: bytes) -> None:
        self._write_block(stream, trailers, frames.END_HEADERS | frames.END_STREAM)
        if stream.remote_open:
            self._output.append(frames.reset_frame(stream.number, ErrorCode.NO_ERROR))
        self._forget(stream)

    def _forget(self, stream: Stream[Call]) -> None:
        self._streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)
        self.queued_bytes -= stream.unsent_bytes
        stream.unsent.clear()
        stream.on_drained = None
        stream.remote_open = False

    # What was received

    def receive(self, data: bytes) -> None:
        """Take bytes; whoever breaks the protocol is told so, and `ended` is set."""
        if self.ended:
            return
        rest = self._rest
        if rest and len(rest) + len(data) < self._wanted_bytes:
            rest += data
            return
        try:
            self._take(b"".join((rest, data)) if rest else data)
        except ConnectionFault as fault:
            self._end(fault)

    def _end(self, fault: ConnectionFault) -> None:
        self.ended = True
        self._rest.clear()
        self._output.append(frames.goaway_frame(self._last_number, fault.code, fault.reason))

    def _take(self, data: bytes) -> None:
        at = 0 if self.greeted else self._take_preface(data)
        if not self.greeted:
            self._keep(data, 0)
            return
        if self._part is not None:
            at = self._take_part(self._part, data, at)
        end = len(data)
        wanted = frames.HEADER_BYTES
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = frames.FRAME_HEADER.unpack_from(data, at)
            length = high << 16 | low
            if length > self._limits.frame_bytes:
                expected = f"at most {self._limits.frame_bytes}"
                raise frames.size_fault("frame", expected, length)
            start = at + frames.HEADER_BYTES
            at = start + length
            number = frames.stream_of(number)
            if at <= end:
                self._take_frame(kind, flags, number, data[start:at])
            elif kind == frames.DATA and length >= _WORTH_PARTS and not flags & frames.PADDED:
                at = self._take_part(self._begin_part(flags, number, length), data, start)
            else:
                at = start - frames.HEADER_BYTES
                wanted += length
                break
        self._keep(data[at:], wanted)

    def _keep(self, rest: bytes, wanted_bytes: Bytes) -> None:
        """Keep the beginning of a frame until so many bytes of it are there."""
        if rest or self._rest:
            self._rest = bytearray(rest)
            self._wanted_bytes = wanted_bytes

    def _take_preface(self, data: bytes) -> int:
        """Return where the first frame begins."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected HTTP/2 from the first byte")
        self.greeted = len(data) > _KIND_AT
        if self.greeted and data[_KIND_AT] != frames.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS first")
        return len(frames.PREFACE)

    def _take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (
            kind != frames.CONTINUATION or number != self._block.number
        ):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame amid a header block")
        take = _TAKE.get(kind)
        if take is not None:
            _check_place(kind, number)
            take(self, flags, number, payload)

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
            self._output.append(frames.window_update(0, whole - self._receive_room))
            self._receive_room = whole

    def _begin_part(self, flags: int, number: int, length: int) -> _OpenData[Call]:
        """Take the beginning of a large data frame, so that its data need not be put together."""
        if self._block is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame amid a header block")
        _check_place(frames.DATA, number)
        stream = self._receiving(number, length)
        self._part = _OpenData(stream, length, bool(flags & frames.END_STREAM))
        return self._part

    def _take_part(self, part: _OpenData[Call], data: bytes, at: int) -> int:
        """Hand on what has come of a data frame; return where the next frame begins."""
        piece = memoryview(data)[at : at + part.left]
        part.left -= len(piece)
        if not part.left:
            self._part = None
        stream = part.stream
        if stream is not None and self._streams.get(stream.number) is stream:
            self._hand_on(stream, piece, ended=part.ended and not part.left)
        return at + len(piece)

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        block = frames.unpadded(payload, flags, prioritised=True)
        opened = _OpenBlock(number, bool(flags & frames.END_STREAM), block)
        self._check_length(opened)
        if flags & frames.END_HEADERS:
            self._take_block(opened)
        else:
            self._block = opened

    def _take_continuation(self, flags: int, _number: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.data += payload
        self._check_length(block)
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(block)
        elif not payload:
            # It brings nothing nearer, and there is no end to them.
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "an empty part of headers")

    def _check_length(self, block: _OpenBlock) -> None:
        if len(block.data) > _BLOCK_SLACK * self._limits.header_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers that are too long")

    def _take_block(self, block: _OpenBlock) -> None:
        """Take all headers of a request, or its trailers, which say nothing."""
        head = self._reader.read(block.data)  # also where it is not wanted: the table must agree
        stream = self._streams.get(block.number)
        if stream is not None:
            self._take_trailers(stream, block)
        elif block.number > self._last_number:
            self._open(block, head)

    def _take_trailers(self, stream: Stream[Call], block: _OpenBlock) -> None:
        if not stream.remote_open:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "headers after the end of a stream")
        if not block.ended:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a second block of headers")
        self._hand_on(stream, b"", ended=True)

    def _open(self, block: _OpenBlock, head: Head | None) -> None:
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
        self._output.append(frames.reset_frame(number, code))

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
        self._output.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if self._new_stream_room > before:
            self._pump_all()

    def _pump_all(self) -> None:
        for stream in self.open_streams:
            if stream.unsent:
                self._pump(stream)

    def _set(self, identifier: int, value: int) -> None:
        if identifier == frames.HEADER_TABLE_SIZE:
            # Nothing is ever put there, but a peer may want to hear that this is known.
            self._table_resized = True
        elif identifier == frames.INITIAL_WINDOW_SIZE:
            self._resize_windows(value)
        elif identifier == frames.MAX_FRAME_SIZE:
            if not frames.USUAL_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self._frame_bytes = value
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
            self._output.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _take_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        more = frames.read_increment(payload)
        if number:
            self._widen_stream(number, more)
            return
        self._send_room += more
        if not more:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window widened by nothing")
        if self._send_room > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window grows too large")
        self._pump_blocked()

    def _widen_stream(self, number: int, more: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        stream.send_room += more
        if more and stream.send_room <= frames.LARGEST_WINDOW:
            self._pump(stream)
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


@dataclass(slots=True)
class _OpenBlock:
    """A header block whose end has not come."""

    number: int
    ended: bool
    data: bytes


@dataclass(slots=True)
class _OpenData(Generic[Call]):
    """A large data frame of which `left` bytes have not come; of no stream if that is over."""

    stream: Stream[Call] | None
    left: int
    ended: bool


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

"""What is to be sent on a connection, and what has to wait until the peer makes room.

Knows frames and the peer's windows; nothing of what is received.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic

from penstock.domain.units import Bytes
from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode
from penstock.rpc.http2.hpack import NO_TABLE
from penstock.rpc.http2.streams import Call, Stream

_LARGEST_FRAME: Bytes = 1 << 17  # that we send, whatever the peer takes: output is taken by frames


class Outgoing(Generic[Call]):
    """The sending half of a connection.

    Args:
        closed: told when a stream's last frame was written.

    Attributes:
        table_resized: whether the peer wants to hear that its header table is left alone.
        queued_bytes: data that waits for the peer to make room.
        output_bytes: what was not taken of what is to be sent.
    """

    def __init__(self, closed: Callable[[Stream[Call]], None]) -> None:
        self._closed = closed
        self._output: deque[bytes | memoryview] = deque()
        # Those that wait for room on the connection and have room of their own, longest first.
        self._blocked: OrderedDict[int, Stream[Call]] = OrderedDict()
        self._room = frames.USUAL_WINDOW
        self._frame_bytes = frames.USUAL_FRAME
        self.table_resized = False
        self.queued_bytes = 0
        self.output_bytes = 0

    def __bool__(self) -> bool:
        """Return whether anything is to be sent."""
        return bool(self._output)

    def take(self, enough_bytes: Bytes) -> list[bytes | memoryview]:
        """Return what is to be sent, once, in order.

        Args:
            enough_bytes: when it is so many, what is left is kept for another time.
        """
        taken: list[bytes | memoryview] = []
        end_bytes = self.output_bytes - enough_bytes
        while self._output and self.output_bytes > end_bytes:
            taken.append(self._output.popleft())
            self.output_bytes -= len(taken[-1])
        return taken

    def limit_frames(self, size: Bytes) -> None:
        """Send no frame that is larger."""
        self._frame_bytes = min(size, _LARGEST_FRAME)

    def write(self, frame: bytes | memoryview) -> None:
        """Send bytes that need no room."""
        self._output.append(frame)
        self.output_bytes += len(frame)

    def begin(self, stream: Stream[Call], block: bytes) -> None:
        """Send the headers of an answer."""
        self._write_block(stream, block, frames.END_HEADERS)

    def send(self, stream: Stream[Call], data: bytes | memoryview) -> None:
        """Send data as soon as there is room for it."""
        if not stream.unsent and len(data) <= self._room_for(stream):
            self._emit(stream, data)
            return
        stream.unsent.append(memoryview(data))
        self.queued_bytes += len(data)
        self.pump(stream)

    def finish(self, stream: Stream[Call], trailers: bytes) -> None:
        """End an answer, after all data that waits."""
        if stream.unsent:
            stream.trailers = trailers
        else:
            self._close(stream, trailers)

    def forget(self, stream: Stream[Call]) -> None:
        """Let fall what waits."""
        self._blocked.pop(stream.number, None)
        self.queued_bytes -= stream.unsent_bytes
        stream.unsent.clear()
        stream.on_drained = None

    def widen(self, more: int) -> None:
        """Use room that the peer has made on the connection.

        Raises:
            ConnectionFault: it is none, or more than there can be.
        """
        if not more:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window widened by nothing")
        self._room += more
        if self._room > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window grows too large")
        while self._blocked and self._room > 0:
            # Whoever is blocked again stands at the end of the line.
            _, stream = self._blocked.popitem(last=False)
            self.pump(stream)

    def pump(self, stream: Stream[Call]) -> None:
        """Send what there is room for."""
        while stream.unsent:
            room = self._room_for(stream)
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

    def _room_for(self, stream: Stream[Call]) -> int:
        return min(stream.send_room, self._room, self._frame_bytes)

    def _wait(self, stream: Stream[Call]) -> None:
        """Let a stream stand in line, unless no room on the connection would help it."""
        if stream.send_room > 0:
            self._blocked[stream.number] = stream
        else:
            self._blocked.pop(stream.number, None)

    def _emit(self, stream: Stream[Call], data: bytes | memoryview) -> None:
        size = len(data)
        stream.send_room -= size
        self._room -= size
        self.write(frames.frame_header(size, frames.DATA, 0, stream.number))
        self.write(data)

    def _close(self, stream: Stream[Call], trailers: bytes) -> None:
        self._write_block(stream, trailers, frames.END_HEADERS | frames.END_STREAM)
        if stream.remote_open:
            self.write(frames.reset_frame(stream.number, ErrorCode.NO_ERROR))
        self._closed(stream)

    def _write_block(self, stream: Stream[Call], block: bytes, flags: int) -> None:
        if self.table_resized:
            self.table_resized = False
            block = NO_TABLE + block
        header = frames.frame_header(len(block), frames.HEADERS, flags, stream.number)
        self.write(header + block)

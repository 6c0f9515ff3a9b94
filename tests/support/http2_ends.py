"""A server's end of HTTP/2 with a sink that writes everything down, and frames by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.rpc.http2 import frames
from penstock.rpc.http2.connection import Connection, Limits
from penstock.rpc.http2.frames import ErrorCode
from penstock.rpc.http2.hpack import Headers, write_headers
from penstock.rpc.http2.streams import Stream

NoCall: TypeAlias = "Stream[object]"

REQUEST: Headers = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"here"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
BLOCK = write_headers(REQUEST)
EMPTY_SETTINGS = frames.settings_frame(())
GREETING = frames.PREFACE + EMPTY_SETTINGS
OPEN = frames.END_HEADERS
WHOLE = frames.END_HEADERS | frames.END_STREAM


@dataclass(slots=True)
class Got:
    """What came of one stream."""

    stream: NoCall
    headers: Headers
    body: bytearray = field(default_factory=bytearray)
    ends: int = 0
    was_reset: bool = False


class Recorder:
    """A sink that grants what it gets, unless it is told not to."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.connection: Connection[Headers, object] = Connection(
            self, lambda headers: headers, limits or Limits()
        )
        self.got: dict[int, Got] = {}
        self.granting = True

    def opened(self, stream: NoCall, head: Headers, *, ended: bool) -> None:
        assert stream.number not in self.got
        self.got[stream.number] = Got(stream, head, ends=int(ended))

    def received(self, stream: NoCall, data: bytes | memoryview, *, ended: bool) -> None:
        got = self.got[stream.number]
        assert not got.ends
        assert not got.was_reset
        got.body += data
        got.ends += ended
        if self.granting:
            self.connection.grant(stream, len(data))

    def reset(self, stream: NoCall) -> None:
        got = self.got[stream.number]
        assert not got.was_reset
        got.was_reset = True

    def sent(self) -> bytes:
        """Return what the connection has to send."""
        return b"".join(self.connection.take_output())

    def answers(self, *sent: bytes) -> list[Frame]:
        """Return the frames that some bytes are answered with."""
        self.connection.receive(b"".join(sent))
        return list(split(self.sent()))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, read."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        """Why, if this is a RST_STREAM or a GOAWAY."""
        at = 4 if self.kind == frames.GOAWAY else 0
        return ErrorCode(struct.unpack_from(">I", self.payload, at)[0])


def split(sent: bytes) -> Iterator[Frame]:
    """Yield the frames in what was sent."""
    at = 0
    while at < len(sent):
        high, low, kind, flags, number = frames.FRAME_HEADER.unpack_from(sent, at)
        start = at + frames.HEADER_BYTES
        at = start + (high << 16 | low)
        assert at <= len(sent)
        yield Frame(kind, flags, number, sent[start:at])


def a_greeted(limits: Limits | None = None) -> Recorder:
    """Return an end that has been greeted, with nothing left to send."""
    end = Recorder(limits)
    end.answers(GREETING)
    return end


def a_request(number: int = 1, flags: int = OPEN, block: bytes = BLOCK) -> bytes:
    """Return a frame that opens a stream."""
    return frames.frame(frames.HEADERS, flags, number, block)


def some_data(number: int, data: bytes, flags: int = 0) -> bytes:
    """Return a DATA frame."""
    return frames.frame(frames.DATA, flags, number, data)


def window_update(number: int, more: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frames.window_update(number, more)


def settings(*values: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frames.settings_frame(values)


def only(answers: Iterable[Frame], kind: int) -> list[Frame]:
    """Return the frames of one kind."""
    return [each for each in answers if each.kind == kind]

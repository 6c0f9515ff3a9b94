"""HTTP/2 frames as bytes: kinds, flags, settings, error codes (RFC 9113, sections 4, 6 and 7).

Knows no connection: which frame may come when is decided in `connection`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = struct.Struct(">BHBBI")  # length in 1 + 2 bytes, kind, flags, stream
HEADER_BYTES = FRAME_HEADER.size
_STREAM_BITS = 0x7FFFFFFF
LARGEST_WINDOW = 0x7FFFFFFF
USUAL_WINDOW = 65_535
USUAL_FRAME = 16_384
LARGEST_FRAME = (1 << 24) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

PING_BYTES, PRIORITY_BYTES = 8, 5

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_GOAWAY = struct.Struct(">II")


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """The peer broke a rule that a connection cannot survive."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return frame_header(len(payload), kind, flags, stream) + payload


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the nine bytes in front of a payload."""
    return FRAME_HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values))


def window_update(stream: int, more: int) -> bytes:
    """Return a frame that lets the peer send so many bytes more; stream 0: on the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(more))


def reset_frame(stream: int, code: ErrorCode) -> bytes:
    """Return a frame that ends one stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway_frame(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """Return a frame that announces the end of a connection."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code) + reason.encode())


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield what a SETTINGS frame sets.

    Raises:
        ConnectionFault: it is cut short.
    """
    if len(payload) % _SETTING.size:
        raise size_fault("SETTINGS", f"a multiple of {_SETTING.size}", len(payload))
    yield from _SETTING.iter_unpack(payload)


def read_number(payload: bytes, kind: str) -> int:
    """Return what a frame of four bytes says.

    Raises:
        ConnectionFault: it is of another size.
    """
    if len(payload) != _NUMBER.size:
        raise size_fault(kind, str(_NUMBER.size), len(payload))
    number: int = _NUMBER.unpack(payload)[0]
    return number


def read_increment(payload: bytes) -> int:
    """Return by how many bytes a WINDOW_UPDATE widens a window.

    Raises:
        ConnectionFault: it is of another size.
    """
    return read_number(payload, "WINDOW_UPDATE") & _STREAM_BITS


def unpadded(payload: bytes, flags: int, *, prioritised: bool = False) -> bytes:
    """Return a payload without its padding and, if it may have one, its priority.

    Raises:
        ConnectionFault: there is more padding than payload.
    """
    padding = payload[0] if flags & PADDED and payload else 0
    start = 1 if flags & PADDED else 0
    if prioritised and flags & HAS_PRIORITY:
        start += PRIORITY_BYTES
    end = len(payload) - padding
    if end < start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame has more padding than payload")
    return payload[start:end]


def stream_of(number: int) -> int:
    """Return a stream's number without the reserved bit."""
    return number & _STREAM_BITS


def size_fault(kind: str, expected: str, found: int) -> ConnectionFault:
    """Return the fault of a frame whose length cannot be."""
    reason = f"{kind}: expected {expected} bytes, found {found}"
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, reason)

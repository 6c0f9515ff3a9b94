"""Notices as bytes: each behind its length, one after the other.

Knows bytes; nothing of sockets or of what a notice means.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from penstock.domain.errors import InvalidInput
from protos.acceptors_pb2 import Notice

_LENGTH = struct.Struct("<I")
_LONGEST = 64 << 20  # a plan of thousands of instances is far below


def pack(notice: Notice) -> bytes:
    """Return a notice as it travels."""
    body = notice.SerializeToString()
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Finds notices in a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[Notice]:
        """Take more bytes; return the notices that are complete now.

        Raises:
            InvalidInput: these are no notices; nothing after them can be read.
        """
        data = self._held + data if self._held else data
        start = 0
        while (end := _end_of(data, start)) <= len(data):
            yield _notice(data[start + _LENGTH.size : end])
            start = end
        self._held = data[start:]


def _end_of(data: bytes, start: int) -> int:
    """Return where the notice ends that starts there, as far as that is known."""
    body = start + _LENGTH.size
    if body > len(data):
        return body
    (length,) = _LENGTH.unpack_from(data, start)
    if length > _LONGEST:
        raise _invalid(f"at most {_LONGEST} bytes", f"{length} bytes")
    return body + int(length)


def _notice(body: bytes) -> Notice:
    try:
        notice = Notice.FromString(body)
    except DecodeError:
        raise _invalid("a Notice", "other bytes") from None
    if notice.WhichOneof("kind") is None:
        raise _invalid("a known kind of notice", "none")
    return notice


def _invalid(expected: str, found: str) -> InvalidInput:
    return InvalidInput("notices between dispatcher and acceptor", "", expected, found)

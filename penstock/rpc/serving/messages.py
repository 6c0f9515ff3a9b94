"""Messages of a call: five bytes in front of each tell its length and whether it is compressed.

Knows bytes; nothing of what a message means.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from penstock.domain.units import Bytes

_PREFIX = struct.Struct(">BI")
PREFIX_BYTES = _PREFIX.size
IDENTITY = "identity"
# zlib's word for the format: gzip, or zlib's own, which HTTP calls deflate.
_WINDOW_BITS: Mapping[str, int] = MappingProxyType({"gzip": 31, "deflate": 15})
_WORTH_KEEPING = 16 << 10
ENCODINGS = (IDENTITY, *_WINDOW_BITS)


class MessageFault(ValueError):
    """Bytes that are no messages."""


class MessageTooLong(MessageFault):
    """A message that is longer than allowed."""


class Compressed(bytes):
    """A message as it came: a few bytes of many may become as many large messages as they are."""

    __slots__ = ()


def prefixed(message: bytes) -> bytes:
    """Return a message as it travels."""
    return prefix(message) + message


def prefix(message: bytes) -> bytes:
    """Return what travels in front of a message."""
    return _PREFIX.pack(0, len(message))


class MessageReader:
    """Cuts what comes of one call into messages.

    Args:
        limit_bytes: of one message, compressed or not.
        encoding: one of `ENCODINGS`.

    Attributes:
        held_bytes: what has come of a message that is not complete.
    """

    __slots__ = ("_encoding", "_limit_bytes", "_parts", "held_bytes")

    def __init__(self, limit_bytes: Bytes, encoding: str) -> None:
        self._limit_bytes = limit_bytes
        self._encoding = encoding
        self._parts: list[bytes | bytearray | memoryview] = []
        self.held_bytes = 0

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Return the messages that are complete now, to be given to `opened` one by one.

        Raises:
            MessageFault: there will never be any more.
        """
        if self._parts:
            self._keep(data)
            if self.held_bytes < PREFIX_BYTES + self._expected():
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        return self._cut(data)

    def opened(self, message: bytes) -> bytes:
        """Return a message as it was before it was compressed, if it was.

        Raises:
            MessageFault: it cannot be had.
        """
        return self._expanded(message) if isinstance(message, Compressed) else message

    def _expected(self) -> Bytes:
        """Return the length of the message under way; 0 if that is not known yet."""
        first = self._parts[0]
        if len(first) < PREFIX_BYTES and self.held_bytes >= PREFIX_BYTES:
            self._parts = [first := b"".join(self._parts)]
        return self._length(first, 0)[1] if len(first) >= PREFIX_BYTES else 0

    def _cut(self, data: bytes | memoryview) -> list[bytes]:
        messages = []
        at, end = 0, len(data)
        while end - at >= PREFIX_BYTES:
            compressed, length = self._length(data, at)
            start = at + PREFIX_BYTES
            if end - start < length:
                break
            at = start + length
            message = bytes(data[start:at])
            messages.append(Compressed(message) if compressed else message)
        self.held_bytes = 0
        if at < end:
            self._keep(data[at:])
        return messages

    def _keep(self, data: bytes | memoryview) -> None:
        """Keep a part: a small one with others, so that many take no more room than their bytes."""
        self.held_bytes += len(data)
        if len(data) >= _WORTH_KEEPING:
            self._parts.append(data)
        elif self._parts and isinstance(last := self._parts[-1], bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def _length(self, data: bytes | bytearray | memoryview, at: int) -> tuple[int, Bytes]:
        compressed, length = _PREFIX.unpack_from(data, at)
        if compressed > 1:
            raise MessageFault(f"expected a message, found one that begins with byte {compressed}")
        if length > self._limit_bytes:
            raise self._too_long(f"{length}")
        return compressed, length

    def _expanded(self, message: bytes) -> bytes:
        bits = _WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise MessageFault("a message is compressed, but grpc-encoding does not say how")
        expander = zlib.decompressobj(wbits=bits)
        try:
            expanded = expander.decompress(message, self._limit_bytes + 1)
        except zlib.error as error:
            raise MessageFault(f"a message is not compressed with {self._encoding}") from error
        if len(expanded) > self._limit_bytes:
            raise self._too_long("more than that, compressed")
        if not expander.eof:
            raise MessageFault(f"a message is not compressed with {self._encoding}")
        return expanded

    def _too_long(self, found: str) -> MessageTooLong:
        return MessageTooLong(
            f"expected a message of {self._limit_bytes} bytes at most, found {found}"
        )

"""Cuts what is received into frames, wherever it was cut before.

Knows how a frame begins, and the preface in front of the first; nothing of what a frame means.
"""

from __future__ import annotations

from typing import Protocol

from penstock.domain.units import Bytes
from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode

# A data frame that came in part is handed on at once if it is large; others are waited for.
_WORTH_PARTS = 1 << 16
# The first frame's kind follows the preface and the frame's length.
_KIND_AT = len(frames.PREFACE) + 3


class Taker(Protocol):
    """Who wants the frames. Each method may raise `ConnectionFault`."""

    def take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame."""
        ...

    def begin_data(self, flags: int, number: int, length: Bytes) -> None:
        """Take the beginning of a large data frame; its data follows in parts."""
        ...

    def take_part(self, part: memoryview, *, last: bool) -> None:
        """Take a part of the data frame that was begun."""
        ...


class FrameCutter:
    """The frames of one connection.

    Args:
        taker: gets them.
        limit_bytes: of a frame.

    Attributes:
        greeted: whether the peer has said that it speaks HTTP/2.
    """

    def __init__(self, taker: Taker, limit_bytes: Bytes) -> None:
        self._taker = taker
        self._limit_bytes = limit_bytes
        self._rest = bytearray()
        self._wanted_bytes = 0  # to go on from `_rest`
        self._part_left = 0  # of a data frame that was begun
        self.greeted = False

    def receive(self, data: bytes) -> None:
        """Take bytes and hand on the frames that are complete now.

        Raises:
            ConnectionFault: they are none, or the taker does not want them.
        """
        rest = self._rest
        if rest and len(rest) + len(data) < self._wanted_bytes:
            rest += data
            return
        if rest:
            data = b"".join((rest, data))
        at = 0 if self.greeted else self._take_preface(data)
        if self.greeted:
            self._cut(data, self._take_part(data, at) if self._part_left else at)
        else:
            self._keep(data, 0)

    def forget(self) -> None:
        """Let go of the beginning of a frame."""
        self._rest = bytearray()

    def _take_preface(self, data: bytes) -> int:
        """Return where the first frame begins."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected HTTP/2 from the first byte")
        self.greeted = len(data) > _KIND_AT
        if self.greeted and data[_KIND_AT] != frames.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "expected SETTINGS first")
        return len(frames.PREFACE)

    def _cut(self, data: bytes, at: int) -> None:
        end = len(data)
        wanted_bytes = frames.HEADER_BYTES
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = frames.FRAME_HEADER.unpack_from(data, at)
            length = high << 16 | low
            if length > self._limit_bytes:
                raise frames.size_fault("frame", f"at most {self._limit_bytes}", length)
            start = at + frames.HEADER_BYTES
            if start + length <= end:
                at = start + length
                self._taker.take_frame(kind, flags, frames.stream_of(number), data[start:at])
            elif kind == frames.DATA and length >= _WORTH_PARTS and not flags & frames.PADDED:
                self._taker.begin_data(flags, frames.stream_of(number), length)
                self._part_left = length
                at = self._take_part(data, start)
            else:
                wanted_bytes += length
                break
        self._keep(data[at:], wanted_bytes)

    def _take_part(self, data: bytes, at: int) -> int:
        """Hand on what has come of a data frame; return where the next frame begins."""
        part = memoryview(data)[at : at + self._part_left]
        self._part_left -= len(part)
        self._taker.take_part(part, last=not self._part_left)
        return at + len(part)

    def _keep(self, rest: bytes, wanted_bytes: Bytes) -> None:
        """Keep the beginning of a frame until so many bytes of it are there."""
        if rest or self._rest:
            self._rest = bytearray(rest)
            self._wanted_bytes = wanted_bytes

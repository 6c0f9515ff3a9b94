"""Puts header blocks together that come in several frames.

Knows where a block ends; nothing of what it says.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.units import Bytes
from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode

# A block of headers this many times as long as the limit ends the connection. A shorter one that
# is too long ends its stream: it must be read nevertheless, since the table must agree.
_SLACK = 4


@dataclass(slots=True)
class Block:
    """A header block; `ended`: nothing follows it on its stream."""

    number: int
    ended: bool
    data: bytes


class BlockAssembler:
    """The header blocks of one connection.

    Args:
        limit_bytes: of the headers of a block, read.
    """

    def __init__(self, limit_bytes: Bytes) -> None:
        self._most_bytes = _SLACK * limit_bytes
        self._open: Block | None = None

    def check(self, kind: int, number: int) -> None:
        """Check that a frame may come now.

        Raises:
            ConnectionFault: a block is open, and this does not go on with it.
        """
        block = self._open
        if block is not None and (kind != frames.CONTINUATION or number != block.number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame amid a header block")

    def begin(self, flags: int, number: int, payload: bytes) -> Block | None:
        """Take the first part of a block; return the block if that is all.

        Raises:
            ConnectionFault: it is too long, or its padding is.
        """
        data = frames.unpadded(payload, flags, prioritised=True)
        return self._taken(Block(number, bool(flags & frames.END_STREAM), data), flags)

    def go_on(self, flags: int, payload: bytes) -> Block | None:
        """Take another part; return the block if it is the last.

        Raises:
            ConnectionFault: no block is open, or there is no end to it.
        """
        block = self._open
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        if not payload and not flags & frames.END_HEADERS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "an empty part of headers")
        block.data += payload
        return self._taken(block, flags)

    def _taken(self, block: Block, flags: int) -> Block | None:
        if len(block.data) > self._most_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers that are too long")
        whole = bool(flags & frames.END_HEADERS)
        self._open = None if whole else block
        return block if whole else None

"""What both ends of a link through shared memory say to each other.

The sender's hello names a local socket. A receiver that can open it gets the sender's segment there
and maps it for reading. From then on the socket carries, in order,

    to the receiver   F | message            a small message, as it is
                      R | generation | start | size
                                             a message that lies in the segment
    to the sender     generation …           regions that nobody looks at any more

In the segment, a region starts with a stamp: its generation and size; the message follows. The
sender publishes by naming a region on the socket, so one that died while writing has published
nothing, and it writes nowhere before the receiver has given a region back. Numbers have eight
bytes, little endian. Knows bytes, no sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from penstock.domain.errors import InvalidInput
from penstock.domain.units import Bytes
from penstock.rpc.arena import ALIGNMENT_BYTES

INLINE_BYTES: Bytes = 16 << 10  # up to here two copies by the kernel cost less than a region
STAMP_BYTES: Bytes = ALIGNMENT_BYTES  # so that what follows is aligned, too
RELEASES_AT_ONCE = 512
GENERATION_BYTES = 8
CAPACITY = struct.Struct("<Q")  # comes with the segment

INLINE = b"F"
_NAMED = b"R"
_REGION = struct.Struct("<cQQQ")
_STAMP = struct.Struct("<QQ")

LONGEST_BYTES: Bytes = max(_REGION.size, len(INLINE) + INLINE_BYTES)  # of all to the receiver


class Named(NamedTuple):
    """A region as its sender names it.

    Attributes:
        start: of its stamp.
        size: of the message behind that.
    """

    generation: int
    start: int
    size: int


def pack_named(named: Named) -> bytes:
    """Return what names a region."""
    return _REGION.pack(_NAMED, *named)


def read_named(data: bytes, newer_than: int, segment: memoryview) -> Named:
    """Return the region that a message names, if that is what it says.

    Args:
        data: came from the sender.
        newer_than: the last generation that came.
        segment: where the region is to lie.

    Raises:
        InvalidInput: it is no such message, or there is no such region.
    """
    if len(data) != _REGION.size or data[:1] != _NAMED:
        raise _invalid("message", "a message or a region", f"{len(data)} other bytes")
    named = Named(*_REGION.unpack(data)[1:])
    if named.generation <= newer_than:
        expected = f"a generation after {newer_than}"
        raise _invalid("region", expected, f"generation {named.generation}")
    if not named.size or named.start + STAMP_BYTES + named.size > len(segment):
        found = f"{named.size} bytes at {named.start}"
        raise _invalid("region", f"some bytes within {len(segment)}", found)
    check_stamp(named, segment)
    return named


def write_stamp(named: Named, segment: memoryview) -> None:
    """Let a region say what it is."""
    _STAMP.pack_into(segment, named.start, named.generation, named.size)


def check_stamp(named: Named, segment: memoryview) -> None:
    """Check that a region is still what it was named.

    Raises:
        InvalidInput: somebody has written there.
    """
    generation, size = _STAMP.unpack_from(segment, named.start)
    if (generation, size) != (named.generation, named.size):
        expected = f"generation {named.generation} of {named.size} bytes"
        raise _invalid(f"region at {named.start}", expected, f"{generation} of {size} bytes")


def pack_generations(generations: Iterable[int]) -> bytes:
    """Return what gives regions back."""
    return b"".join(each.to_bytes(GENERATION_BYTES, "little") for each in generations)


def read_generations(data: bytes) -> list[int]:
    """Return the regions that are given back.

    Raises:
        InvalidInput: these are no generations.
    """
    if len(data) % GENERATION_BYTES:
        raise _invalid("released", "whole generations", f"{len(data)} bytes")
    starts = range(0, len(data), GENERATION_BYTES)
    return [int.from_bytes(data[each : each + GENERATION_BYTES], "little") for each in starts]


def _invalid(place: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput("shared memory", place, expected, found)

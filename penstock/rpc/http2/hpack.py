"""Header blocks (RFC 7541): read with a table that both ends keep, written without one.

A client that repeats itself sends the same few bytes with every call, each an index into the table.
Such a block is looked up as a whole. Knows nothing of what headers mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from penstock.rpc.http2 import huffman
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = tuple[Header, ...]
Read = TypeVar("Read")

TABLE_BYTES = 4096
NO_TABLE = b"\x20"  # in front of a block: the writer's table shrinks to nothing
_ENTRY_BYTES = 32  # what an entry counts for beside its name and value
_MOST_KNOWN = 64
_MOST_BITS = 35  # of a number beyond its prefix
_SEVEN_BITS = 0x7F

_STATIC: Final[Headers] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)


class _Table:
    """The entries both ends remember, the newest first."""

    def __init__(self) -> None:
        self._entries: deque[Header] = deque()
        self._bytes = 0
        self._limit_bytes = TABLE_BYTES

    def __getitem__(self, index: int) -> Header:
        """Return an entry by its number, which begins with 1.

        Raises:
            ConnectionFault: there is none.
        """
        place = index - len(_STATIC) - 1
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        if 0 <= place < len(self._entries):
            return self._entries[place]
        raise _fault(f"no entry {index} in the header table")

    def add(self, entry: Header) -> None:
        """Remember an entry; the oldest give way."""
        self._entries.appendleft(entry)
        self._bytes += _entry_bytes(entry)
        self._evict()

    def resize(self, limit_bytes: int) -> None:
        """Use no more than so much.

        Raises:
            ConnectionFault: that is more than was offered.
        """
        if limit_bytes > TABLE_BYTES:
            raise _fault(
                f"a header table of {limit_bytes} bytes, at most {TABLE_BYTES} are offered"
            )
        self._limit_bytes = limit_bytes
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._limit_bytes:
            self._bytes -= _entry_bytes(self._entries.pop())


class HeaderReader(Generic[Read]):
    """Reads the header blocks of one connection, in their order.

    Args:
        understand: makes of headers what `read` returns; headers read before may not be shown
            to it again.
        limit_bytes: of all names and values of one block, with 32 for each.
    """

    def __init__(self, understand: Callable[[Headers], Read], limit_bytes: int) -> None:
        self._understand = understand
        self._limit_bytes = limit_bytes
        self._table = _Table()
        self._known: dict[bytes, Read] = {}

    def read(self, block: bytes) -> Read | None:
        """Return what a block says; None if it says more than is allowed.

        Raises:
            ConnectionFault: it is no header block.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        block_reader = _BlockReader(block, self._table, self._limit_bytes)
        headers = block_reader.headers()
        read = None if headers is None else self._understand(headers)
        if block_reader.changed_table:
            self._known.clear()
        elif read is not None and len(self._known) < _MOST_KNOWN:
            self._known[block] = read
        return read


class _BlockReader:
    """Reads one block.

    Attributes:
        changed_table: whether indices mean other things after it.
    """

    def __init__(self, block: bytes, table: _Table, limit_bytes: int) -> None:
        self._block = block
        self._table = table
        self._room_bytes = limit_bytes
        self._at = 0
        self.changed_table = False

    def headers(self) -> Headers | None:
        """Read to the end, for the table's sake; return None if that is too much."""
        headers: list[Header] = []
        while self._at < len(self._block):
            header = self._next(may_resize=not headers)
            if header is None:
                continue
            self._room_bytes -= _entry_bytes(header)
            if self._room_bytes >= 0 or not headers:
                headers.append(header)
        return None if self._room_bytes < 0 else tuple(headers)

    def _next(self, *, may_resize: bool) -> Header | None:
        """Return the next header; None if a new size of the table came instead."""
        first = self._block[self._at]
        if first & 0x80:
            return self._table[self._number(7)]
        if first & 0x40:
            header = self._literal(6)
            self._table.add(header)
            self.changed_table = True
            return header
        if not first & 0x20:
            return self._literal(4)
        if not may_resize:
            raise _fault("the header table is resized amid headers")
        self._table.resize(self._number(5))
        self.changed_table = True
        return None

    def _literal(self, prefix_bits: int) -> Header:
        index = self._number(prefix_bits)
        name = self._table[index][0] if index else self._string()
        return name, self._string()

    def _string(self) -> bytes:
        if self._at >= len(self._block):
            raise _fault("a header block ends amid a header")
        encoded = self._block[self._at] & 0x80
        length = self._number(7)
        text = self._block[self._at : self._at + length]
        if len(text) < length:
            raise _fault("a header block ends amid a header")
        self._at += length
        if not encoded:
            return text
        try:
            return huffman.decode(text)
        except huffman.NotHuffman as error:
            raise _fault(str(error)) from error

    def _number(self, prefix_bits: int) -> int:
        """Read a number that begins in the low bits of the next byte (section 5.1)."""
        most = (1 << prefix_bits) - 1
        number = self._block[self._at] & most
        self._at += 1
        if number < most:
            return number
        for shift in range(0, _MOST_BITS, 7):
            if self._at >= len(self._block):
                raise _fault("a header block ends amid a number")
            byte = self._block[self._at]
            self._at += 1
            number += (byte & _SEVEN_BITS) << shift
            if not byte & 0x80:
                return number
        raise _fault("a number in a header block is too large")


def write_headers(headers: Iterable[Header]) -> bytes:
    """Return a block that changes no table: every header in full."""
    return b"".join(_written(name, value) for name, value in headers)


def _written(name: bytes, value: bytes) -> bytes:
    known = _static_index((name, value))
    if known:
        return bytes((0x80 | known,))
    return b"\x00" + _written_string(name) + _written_string(value)


def _static_index(header: Header) -> int:
    """Return the number of a header in the static table; 0 if it is not there."""
    return _STATIC.index(header) + 1 if header in _STATIC else 0


def _written_string(text: bytes) -> bytes:
    return _written_number(len(text), 7) + text


def _written_number(number: int, prefix_bits: int) -> bytes:
    most = (1 << prefix_bits) - 1
    if number < most:
        return bytes((number,))
    written = bytearray((most,))
    number -= most
    while number > _SEVEN_BITS:
        written.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _entry_bytes(header: Header) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_BYTES


def _fault(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, reason)

"""The Huffman code of HPACK (RFC 7541, appendix B), for reading only.

The code is canonical: codes of one length go up with their symbols, and the first code of a length
follows the last of the length before. So lengths are all that need be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

_END = 256  # never sent, but its first bits are the padding
_MOST_PADDING = 7
_LONGEST = 30

# Length of the code in bits → its symbols.
_SYMBOLS: Mapping[int, tuple[int, ...]] = {
    5: tuple(b"012aceiost"),
    6: tuple(b" %-./3456789=A_bdfghlmnpru"),
    7: tuple(b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    8: tuple(b"&*,;XZ"),
    10: tuple(b'!"()?'),
    11: tuple(b"'+|"),
    12: tuple(b"#>"),
    13: tuple(b"\x00$@[]~"),
    14: tuple(b"^}"),
    15: tuple(b"<`{"),
    19: (92, 195, 208),
    20: (128, 130, 131, 162, 184, 194, 224, 226),
    21: (153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230),
    22: (
        *(129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173),
        *(178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233),
    ),
    23: (
        *(1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158),
        *(165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239),
    ),
    24: (9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237),
    25: (199, 207, 234, 235),
    26: (192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255),
    27: (
        *(203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248),
        *(250, 251, 252, 253, 254),
    ),
    28: (
        *(2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27),
        *(28, 29, 30, 31, 127, 220, 249),
    ),
    30: (10, 13, 22, _END),
}


class NotHuffman(ValueError):
    """Bytes that no symbols encode to."""


def decode(data: bytes) -> bytes:
    """Return what was encoded.

    Raises:
        NotHuffman: nothing was.
    """
    symbols = _symbols_by_code()
    decoded = bytearray()
    code, length = 1, 0  # the leading one tells codes of different length apart
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | (byte >> shift & 1)
            length += 1
            symbol = symbols.get(code)
            if symbol is not None:
                decoded.append(symbol)
                code, length = 1, 0
            elif length == _LONGEST:
                raise NotHuffman("expected a symbol, found the end of the code")
    if length > _MOST_PADDING or code != (1 << length + 1) - 1:
        raise NotHuffman("expected padding of at most seven ones")
    return bytes(decoded)


@cache
def _symbols_by_code() -> Mapping[int, int]:
    """Return symbols by code, each with a one in front. The end is no symbol."""
    return {code: symbol for code, symbol in _codes() if symbol != _END}


def _codes() -> Iterator[tuple[int, int]]:
    code, before = 0, 0
    for length, symbols in _SYMBOLS.items():
        code <<= length - before
        before = length
        for symbol in symbols:
            yield 1 << length | code, symbol
            code += 1

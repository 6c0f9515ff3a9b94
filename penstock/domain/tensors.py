"""Tensors as raw rows: what travels, without any array library.

Data is row-major, little endian, batch axis first; a row is one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from penstock.domain.devices import DeviceBytes
from penstock.domain.units import Bytes

Buffer: TypeAlias = bytes | memoryview

# Open Inference Protocol datatypes of fixed width. BYTES has none and never reaches a stage.
DATATYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "UINT8": 1,
        "UINT16": 2,
        "UINT32": 4,
        "UINT64": 8,
        "INT8": 1,
        "INT16": 2,
        "INT32": 4,
        "INT64": 8,
        "FP16": 2,
        "BF16": 2,
        "FP32": 4,
        "FP64": 8,
    }
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor with its raw bytes.

    Attributes:
        shape: every axis known.
        data: ``byte_size(datatype, shape)`` bytes, unless some of them are on a device.
        pieces: then all of them, one after the other, and `data` is empty.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer
    pieces: tuple[Buffer | DeviceBytes, ...] = ()

    @property
    def size(self) -> Bytes:
        """How many bytes it has, wherever they are."""
        return sum(map(piece_size, self.pieces)) if self.pieces else len(self.data)

    def rows(self, first: int, count: int) -> Buffer:
        """Return the bytes of rows [first, first + count), without a copy."""
        row_bytes = len(self.data) // self.shape[0]
        return memoryview(self.data)[first * row_bytes : (first + count) * row_bytes]


def piece_size(piece: Buffer | DeviceBytes) -> Bytes:
    """Return how many bytes a piece has."""
    return len(piece) if isinstance(piece, bytes | memoryview) else piece.size


def byte_size(datatype: str, shape: Sequence[int]) -> int:
    """Return how many bytes a tensor of fixed-width datatype takes."""
    size = DATATYPE_BYTES[datatype]
    for axis in shape:  # not `math.prod`: in a cache that others have used it costs four times this
        size *= axis
    return size

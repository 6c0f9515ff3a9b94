"""Frames: what one message on a link is made of.

    4 bytes little endian: length of the header | FrameHeader | raw tensor bytes, in header order

Knows bytes and headers, not streams. Packing copies each tensor once, unpacking copies none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import DATATYPE_BYTES, Buffer, Tensor, byte_size
from protos.link_pb2 import FrameHeader, TensorHeader

_LENGTH = struct.Struct("<I")


def pack(header: FrameHeader, parts: Iterable[Buffer] = ()) -> bytes:
    """Return one frame.

    Args:
        header: announces as many tensor bytes as `parts` hold.
        parts: raw tensor bytes in header order; a tensor may be spread over several parts.
    """
    head = header.SerializeToString()
    return b"".join((_LENGTH.pack(len(head)), head, *parts))


def unpack(frame: Buffer) -> tuple[FrameHeader, list[memoryview]]:
    """Return a frame's header and the raw bytes of each tensor it announces.

    The tensors are views of `frame`.

    Raises:
        InvalidInput: the frame contradicts itself.
    """
    view = memoryview(frame)
    header, start = _header(view)
    sizes = [_checked_size(each) for each in announced(header)]
    rest = len(view) - start
    if sum(sizes) != rest:
        raise _invalid("tensors", f"{sum(sizes)} bytes, as announced", f"{rest} bytes")
    tensors: list[memoryview] = []
    for size in sizes:
        tensors.append(view[start : start + size])
        start += size
    return header, tensors


def announced(header: FrameHeader) -> Sequence[TensorHeader]:
    """Return the tensors that follow this header."""
    match header.WhichOneof("kind"):
        case "run_stage":
            return header.run_stage.tensors
        case "result":
            return header.result.tensors
        case _:
            return ()


def tensor_header(
    name: str, datatype: str, shape: Sequence[int], parts: Iterable[Buffer]
) -> TensorHeader:
    """Return the header of a tensor whose bytes lie in `parts`."""
    size = sum(len(part) for part in parts)
    return TensorHeader(name=name, datatype=datatype, shape=shape, byte_size=size)


def tensors_of(headers: Sequence[TensorHeader], views: Sequence[memoryview]) -> tuple[Tensor, ...]:
    """Return the tensors of an unpacked frame, without a copy."""
    return tuple(
        Tensor(head.name, head.datatype, tuple(head.shape), view)
        for head, view in zip(headers, views, strict=True)
    )


def _header(view: memoryview) -> tuple[FrameHeader, int]:
    """Return the header and where it ends."""
    if len(view) < _LENGTH.size:
        raise _invalid("length", f"{_LENGTH.size} bytes", f"{len(view)} bytes")
    (length,) = _LENGTH.unpack_from(view)
    end = _LENGTH.size + length
    if end > len(view):
        raise _invalid("header", f"{length} bytes", f"{len(view) - _LENGTH.size} bytes")
    try:
        header = FrameHeader.FromString(bytes(view[_LENGTH.size : end]))
    except DecodeError:
        raise _invalid("header", "a FrameHeader", "other bytes") from None
    if header.WhichOneof("kind") is None:
        raise _invalid("header", "a known kind of frame", "none")
    return header, end


def _checked_size(tensor: TensorHeader) -> int:
    place = f"tensor {tensor.name!r}"
    if tensor.datatype not in DATATYPE_BYTES:
        raise _invalid(place, "a datatype of fixed width", repr(tensor.datatype))
    if any(axis < 0 for axis in tensor.shape):
        raise _invalid(place, "a shape without negative axes", str(list(tensor.shape)))
    size = byte_size(tensor.datatype, tensor.shape)
    if size != tensor.byte_size:
        shape = f"{tensor.datatype} {list(tensor.shape)}"
        raise _invalid(place, f"{size} bytes for {shape}", f"{tensor.byte_size} bytes")
    return size


def _invalid(place: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput("link frame", place, expected, found)

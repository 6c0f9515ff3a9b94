"""Frames, and the messages that carry them: what travels on a link is made of these.

    frame: 4 bytes: length of the header | FrameHeader | raw tensor bytes, in header order
    chunk: 4 bytes 0xff | 8 bytes: length of the whole frame | some of its bytes

Lengths are little endian. A message is a whole frame or a chunk of one. Knows bytes and headers,
not streams. Packing copies each tensor once, unpacking copies none, putting chunks together once
more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from penstock.domain.devices import DeviceBytes
from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import DATATYPE_BYTES, Buffer, Tensor, byte_size
from penstock.domain.units import Bytes
from protos.link_pb2 import FrameHeader, TensorHeader

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

LARGEST_FRAME_BYTES = 1 << 32

_LENGTH = struct.Struct("<I")
_CHUNK = struct.Struct("<IQ")
_CHUNK_MARK = 0xFFFF_FFFF
NOWHERE: Mapping[int, DeviceBytes] = MappingProxyType({})


def frame_parts(header: FrameHeader, parts: Iterable[Buffer] = ()) -> list[Buffer]:
    """Return one frame as what lies one after the other in it, without a copy.

    Args:
        header: announces as many tensor bytes as `parts` hold.
        parts: raw tensor bytes in header order; a tensor may be spread over several parts.
    """
    head = header.SerializeToString()
    return [_LENGTH.pack(len(head)) + head, *parts]


def pack(header: FrameHeader, parts: Iterable[Buffer] = ()) -> bytes:
    """Return one frame; arguments as of `frame_parts`."""
    return b"".join(frame_parts(header, parts))


def chunk_head(frame_bytes: Bytes) -> bytes:
    """Return what stands before the bytes of a chunk."""
    return _CHUNK.pack(_CHUNK_MARK, frame_bytes)


class Assembly:
    """Puts the chunks of one link's frames together again. Whole frames pass as they are."""

    def __init__(self) -> None:
        self._frame = memoryview(b"")
        self._filled = 0

    def add(self, message: memoryview) -> memoryview | None:
        """Take a message; return a frame when it is complete.

        Raises:
            InvalidInput: a chunk contradicts itself or those before it.
        """
        if len(message) < _LENGTH.size or _LENGTH.unpack_from(message)[0] != _CHUNK_MARK:
            return message
        data = self._checked_chunk(message)
        end = self._filled + len(data)
        self._frame[self._filled : end] = data
        self._filled = end
        if end < len(self._frame):
            return None
        frame, self._frame, self._filled = self._frame, memoryview(b""), 0
        return frame

    def _checked_chunk(self, message: memoryview) -> memoryview:
        """Return the chunk's bytes; there is space for them."""
        if len(message) <= _CHUNK.size:
            raise _invalid("chunk", f"more than {_CHUNK.size} bytes", f"{len(message)} bytes")
        _, frame_bytes = _CHUNK.unpack_from(message)
        if not self._filled:
            self._frame = _space(frame_bytes)
        if frame_bytes != len(self._frame):
            raise _invalid("chunk", f"one of {len(self._frame)} bytes", f"of {frame_bytes} bytes")
        data = message[_CHUNK.size :]
        if self._filled + len(data) > frame_bytes:
            expected = f"at most {frame_bytes - self._filled} bytes"
            raise _invalid("chunk", expected, f"{len(data)} bytes")
        return data


def unpack(frame: Buffer) -> tuple[FrameHeader, list[memoryview]]:
    """Return a frame's header and the raw bytes of each tensor it announces.

    The tensors are views of `frame`; of one on a device it is empty. Whether they are what their
    headers say is checked by `tensors_of`, which reads those.

    Raises:
        InvalidInput: the frame contradicts itself.
    """
    view = memoryview(frame)
    header, start = _header(view)
    end = start
    tensors: list[memoryview] = []
    for each in _checked_announced(header):
        size = 0 if each.HasField("device") else each.byte_size
        tensors.append(view[end : end + size])
        end += size
    if end != len(view):
        found = f"{len(view) - start} bytes"
        raise _invalid("tensors", f"{end - start} bytes, as announced", found)
    return header, tensors


def on_devices(header: FrameHeader) -> bool:
    """Return whether any tensor of a frame is on a device."""
    return any(each.HasField("device") for each in announced(header))


def announced(header: FrameHeader) -> Sequence[TensorHeader]:
    """Return the tensors that follow this header."""
    return _announced(header, header.WhichOneof("kind"))


def announce(
    headers: RepeatedCompositeFieldContainer[TensorHeader],
    name: str,
    datatype: str,
    shape: Sequence[int],
    parts: Iterable[Buffer],
) -> None:
    """Add the header of a tensor whose bytes lie in `parts`.

    Added in place: protobuf copies a message that is put into another by encoding and decoding it.
    """
    size = sum(map(len, parts))
    headers.add(name=name, datatype=datatype, shape=shape, byte_size=size)


def tensors_of(
    headers: Sequence[TensorHeader],
    views: Sequence[memoryview],
    places: Mapping[int, DeviceBytes] = NOWHERE,
) -> tuple[Tensor, ...]:
    """Return the tensors of an unpacked frame, without a copy.

    Args:
        headers, views: as they came.
        places: what lies on the device, by its index.

    Raises:
        InvalidInput: a header contradicts itself.
    """
    return tuple(
        _tensor(head, view, (places[index],) if index in places else ())
        for index, (head, view) in enumerate(zip(headers, views, strict=True))
    )


def _space(frame_bytes: Bytes) -> memoryview:
    """Return memory for a frame; it is real only once it is written, so a lie costs nothing."""
    if frame_bytes > LARGEST_FRAME_BYTES:
        raise _invalid("chunk", f"a frame of at most {LARGEST_FRAME_BYTES} bytes", str(frame_bytes))
    try:
        return np.empty(frame_bytes, np.uint8).data
    except MemoryError:
        raise _invalid("chunk", "a frame that fits into memory", f"{frame_bytes} bytes") from None


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
    return header, end


def _checked_announced(header: FrameHeader) -> Sequence[TensorHeader]:
    kind = header.WhichOneof("kind")
    if kind is None:
        raise _invalid("header", "a known kind of frame", "none")
    return _announced(header, kind)


def _announced(header: FrameHeader, kind: str | None) -> Sequence[TensorHeader]:
    if kind == "run_stage":
        return header.run_stage.tensors
    return header.result.tensors if kind == "result" else ()


def _tensor(head: TensorHeader, data: memoryview, pieces: tuple[DeviceBytes, ...]) -> Tensor:
    name, datatype, shape = head.name, head.datatype, tuple(head.shape)
    place = f"tensor {name!r}"
    if datatype not in DATATYPE_BYTES:
        raise _invalid(place, "a datatype of fixed width", repr(datatype))
    if shape and min(shape) < 0:
        raise _invalid(place, "a shape without negative axes", str(list(shape)))
    size = byte_size(datatype, shape)
    if size != head.byte_size:
        expected = f"{size} bytes for {datatype} {list(shape)}"
        raise _invalid(place, expected, f"{head.byte_size} bytes")
    return Tensor(name, datatype, shape, data, pieces)


def _invalid(place: str, expected: str, found: str) -> InvalidInput:
    return InvalidInput("link frame", place, expected, found)

"""Typed tensor contents of the Open Inference Protocol → raw little-endian bytes.

Knows the lists of ``InferTensorContents`` and which datatype travels in which; nothing of
models, names or shapes. Never allocates more than the elements that came.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.domain.errors import InvalidRequest
from protos import inference_pb2 as pb


class _Typed(NamedTuple):
    """The list a datatype travels in, and how its elements are stored raw.

    Attributes:
        wire: numpy type of the list's elements.
        raw: numpy type of the raw tensor.
    """

    field: str
    wire: str
    raw: str


_TYPED: Mapping[str, _Typed] = MappingProxyType(
    {
        "BOOL": _Typed("bool_contents", "?", "?"),
        "INT8": _Typed("int_contents", "<i4", "<i1"),
        "INT16": _Typed("int_contents", "<i4", "<i2"),
        "INT32": _Typed("int_contents", "<i4", "<i4"),
        "INT64": _Typed("int64_contents", "<i8", "<i8"),
        "UINT8": _Typed("uint_contents", "<u4", "<u1"),
        "UINT16": _Typed("uint_contents", "<u4", "<u2"),
        "UINT32": _Typed("uint_contents", "<u4", "<u4"),
        "UINT64": _Typed("uint64_contents", "<u8", "<u8"),
        "FP32": _Typed("fp32_contents", "<f4", "<f4"),
        "FP64": _Typed("fp64_contents", "<f8", "<f8"),
    }
)

_LISTS = tuple(field.name for field in pb.InferTensorContents.DESCRIPTOR.fields)


def filled_lists(contents: pb.InferTensorContents) -> list[str]:
    """Return the names of the lists that hold at least one element."""
    return [name for name in _LISTS if getattr(contents, name)]


def raw_bytes(
    contents: pb.InferTensorContents, datatype: str, elements: int, source: str, place: str
) -> bytes:
    """Return typed contents as raw bytes.

    Args:
        contents: what the client sent.
        datatype: datatype of the tensor, one of fixed width.
        elements: how many elements its shape asks for.
        source: the request, for errors.
        place: the contents inside it, for errors.

    Raises:
        InvalidRequest: the datatype travels raw only, another list is filled, the number of
            elements is wrong, or one does not fit the datatype.
    """
    typed = _TYPED.get(datatype)
    if typed is None:
        expected = f"{datatype} in raw_input_contents (it has no typed contents)"
        raise InvalidRequest(source, place, expected, "no raw_input_contents")
    strangers = [name for name in filled_lists(contents) if name != typed.field]
    if strangers:
        expected = f"{datatype} in {typed.field}"
        raise InvalidRequest(source, f"{place}.{strangers[0]}", expected, "elements in it")
    values = getattr(contents, typed.field)
    where = f"{place}.{typed.field}"
    if len(values) != elements:
        expected = f"{elements} elements for the shape"
        raise InvalidRequest(source, where, expected, str(len(values)))
    array = np.fromiter(values, dtype=typed.wire, count=elements)
    _check_range(array, datatype, typed, source, where)
    return array.astype(typed.raw, copy=False).tobytes()


def _check_range(
    array: NDArray[np.integer[Any]],
    datatype: str,
    typed: _Typed,
    source: str,
    where: str,
) -> None:
    if typed.wire == typed.raw:
        return
    limits = np.iinfo(typed.raw)
    outside = np.flatnonzero((array < limits.min) | (array > limits.max))
    if outside.size:
        index = int(outside[0])
        expected = f"{datatype} elements in {limits.min}..{limits.max}"
        raise InvalidRequest(source, f"{where}[{index}]", expected, str(array[index]))

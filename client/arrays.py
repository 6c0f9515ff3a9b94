"""numpy arrays ⇄ tensors as raw rows.

Knows which numpy type holds which datatype of the Open Inference Protocol; nothing of gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.domain.errors import InvalidRequest
from penstock.domain.tensors import Tensor

Array: TypeAlias = NDArray[np.generic]

# BF16 has no numpy type: it goes in and comes out as a `Tensor`.
NUMPY_OF: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "?",
        "UINT8": "<u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "<i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }
)


def tensor_of(name: str, array: Array) -> Tensor:
    """Return an array as a tensor: row-major, little endian.

    Raises:
        InvalidRequest: the protocol has no datatype for its elements.
    """
    datatype = datatype_of(name, array.dtype)
    data = np.ascontiguousarray(array, dtype=NUMPY_OF[datatype]).tobytes()
    return Tensor(name, datatype, tuple(array.shape), data)


def datatype_of(name: str, dtype: np.dtype[np.generic]) -> str:
    """Return the protocol's word for a numpy type, whatever its byte order.

    Args:
        name: the tensor it belongs to, for errors.
        dtype: type of the elements.

    Raises:
        InvalidRequest: there is none.
    """
    little = dtype.newbyteorder("<")
    for datatype, numpy_name in NUMPY_OF.items():
        if little == np.dtype(numpy_name):
            return datatype
    raise InvalidRequest(name, "dtype", f"one of {', '.join(NUMPY_OF)}", str(dtype))


def array_of(tensor: Tensor) -> Array:
    """Return a tensor as a read-only array over its own bytes.

    Raises:
        InvalidRequest: numpy has no type for its datatype, or its bytes do not fill its shape.
    """
    numpy_name = NUMPY_OF.get(tensor.datatype)
    if numpy_name is None:
        expected = f"one of {', '.join(NUMPY_OF)}"
        raise InvalidRequest(f"tensor {tensor.name!r}", "datatype", expected, tensor.datatype)
    flat = np.frombuffer(tensor.data, dtype=numpy_name)
    try:
        return flat.reshape(tensor.shape)
    except ValueError as error:
        found = f"{len(tensor.data)} bytes"
        expected = f"bytes for shape {list(tensor.shape)}"
        raise InvalidRequest(f"tensor {tensor.name!r}", "data", expected, found) from error

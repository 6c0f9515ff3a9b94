"""What a load sends: rows from a file, or random ones that fit the model.

Requests are encoded before the load starts, so that encoding never delays a send. Knows nothing
of gRPC or of time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.arrays import NUMPY_OF, Array, tensor_of
from client.messages import infer_message
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.errors import InvalidSettings
from penstock.domain.ids import ModelName
from penstock.domain.tensors import Tensor
from penstock.domain.units import Micros

_RANDOM_ROWS = 64
_RANDOM_INTEGERS = 100  # small enough to be valid token numbers almost everywhere
_ENCODED_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """One request, ready to send.

    Attributes:
        first_row: its first row in the inputs; the others follow, from the start after the end.
    """

    first_row: int
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Rows of every input of one model, the same number of each, at least one."""

    tensors: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.tensors[0].shape[0]

    def take(self, first_row: int, count: int) -> tuple[Tensor, ...]:
        """Return `count` rows from `first_row` on, cycling."""
        return tuple(_take(tensor, first_row % self.rows, count) for tensor in self.tensors)

    def encode(
        self, model: ModelName, samples: int, requests: int, timeout_us: Micros | None
    ) -> tuple[EncodedRequest, ...]:
        """Return different requests of equal size, to be sent in turn.

        Args:
            model: whom to ask.
            samples: rows per request.
            requests: how many are needed; fewer come back where they would repeat themselves
                or take more than 256 MiB.
            timeout_us: the ``timeout`` parameter of each.
        """
        request_bytes = samples * sum(len(each.data) // self.rows for each in self.tensors)
        different = -(-self.rows // samples)
        affordable = max(1, _ENCODED_BYTES // max(1, request_bytes))
        return tuple(
            EncodedRequest(first_row, self._message(model, first_row, samples, timeout_us))
            for first_row in range(0, min(requests, different, affordable) * samples, samples)
        )

    def _message(
        self, model: ModelName, first_row: int, samples: int, timeout_us: Micros | None
    ) -> bytes:
        rows = self.take(first_row, samples)
        return infer_message(model, rows, timeout_us=timeout_us).SerializeToString()


def random_inputs(specs: tuple[TensorSpec, ...], seed: int) -> Inputs:
    """Return random rows: normal numbers, small integers, coin flips.

    Raises:
        InvalidSettings: an axis beside the batch is free, or a datatype cannot be made up.
    """
    dice = np.random.default_rng(seed)
    return Inputs(tensors=tuple(_random_tensor(spec, dice) for spec in specs))


def read_inputs(path: Path, specs: tuple[TensorSpec, ...]) -> Inputs:
    """Return the rows in a file.

    Args:
        path: ``.npz`` with one array for each input by its name, or ``.npy`` for a model with a
            single input; rows along the first axis.
        specs: the model's inputs.

    Raises:
        InvalidSettings: an array is missing, left over, or does not fit the model.
        OSError: the file cannot be opened.
    """
    arrays = _read_arrays(path, specs)
    names = [spec.name for spec in specs]
    if sorted(arrays) != sorted(names):
        raise InvalidSettings(str(path), "", f"arrays {_listed(names)}", _listed(arrays))
    tensors = tuple(_checked(arrays[spec.name], spec, path) for spec in specs)
    rows = {tensor.shape[0] for tensor in tensors}
    if len(rows) != 1 or 0 in rows:
        found = " and ".join(str(each) for each in sorted(rows))
        raise InvalidSettings(str(path), "rows", "the same number in each array, above 0", found)
    return Inputs(tensors=tensors)


def _take(tensor: Tensor, first_row: int, count: int) -> Tensor:
    parts: list[bytes] = []
    left = count
    while left:
        some = min(left, tensor.shape[0] - first_row)
        parts.append(bytes(tensor.rows(first_row, some)))
        left, first_row = left - some, 0
    return Tensor(tensor.name, tensor.datatype, (count, *tensor.shape[1:]), b"".join(parts))


def _random_tensor(spec: TensorSpec, dice: np.random.Generator) -> Tensor:
    shape = (_RANDOM_ROWS, *spec.shape[1:])
    if DYNAMIC in shape:
        found = f"shape {list(spec.shape)}"
        raise InvalidSettings("load", f"input {spec.name!r}", "a file for its free axes", found)
    if spec.datatype == "BF16":
        # The upper half of a 32-bit float is the same number with fewer digits.
        halves = (dice.standard_normal(shape, dtype=np.float32).view(np.uint32) >> 16).astype("<u2")
        return Tensor(spec.name, "BF16", shape, halves.tobytes())
    if spec.datatype not in NUMPY_OF:
        raise InvalidSettings("load", f"input {spec.name!r}", "a file", spec.datatype)
    return tensor_of(spec.name, _random_array(spec.datatype, shape, dice))


def _random_array(datatype: str, shape: tuple[int, ...], dice: np.random.Generator) -> Array:
    if datatype == "BOOL":
        return dice.integers(0, 2, shape).astype("?")
    if datatype.startswith("FP"):
        return dice.standard_normal(shape).astype(NUMPY_OF[datatype])
    return dice.integers(0, _RANDOM_INTEGERS, shape).astype(NUMPY_OF[datatype])


def _read_arrays(path: Path, specs: tuple[TensorSpec, ...]) -> Mapping[str, Array]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {specs[0].name if len(specs) == 1 else path.stem: loaded}
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        expected = "a .npy or .npz file of plain numbers"
        raise InvalidSettings(str(path), "", expected, str(error) or "something else") from error


def _checked(array: Array, spec: TensorSpec, path: Path) -> Tensor:
    place = f"array {spec.name!r}"
    fits = len(array.shape) == len(spec.shape) and all(
        wanted in (DYNAMIC, found)
        for wanted, found in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        expected = f"shape {_shape(spec.shape)}"
        raise InvalidSettings(str(path), place, expected, _shape(array.shape))
    if spec.datatype == "BF16" and array.dtype == np.uint16:
        data = np.ascontiguousarray(array, dtype="<u2").tobytes()
        return Tensor(spec.name, "BF16", tuple(array.shape), data)
    if array.dtype.newbyteorder("<") != np.dtype(NUMPY_OF.get(spec.datatype, "V")):
        raise InvalidSettings(str(path), place, f"{spec.datatype} elements", str(array.dtype))
    return tensor_of(spec.name, array)


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("rows" if not place else str(n) for place, n in enumerate(shape)) + "]"


def _listed(names: list[str] | Mapping[str, Array]) -> str:
    return ", ".join(sorted(names)) or "none"

"""Rows to send: from files, made up, cycled, encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.arrays import array_of, tensor_of
from client.inputs import Inputs, random_inputs, read_inputs
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidRequest, InvalidSettings
from penstock.domain.ids import ModelName
from penstock.domain.tensors import Tensor
from protos import inference_pb2 as pb

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
MASK = TensorSpec(name="mask", datatype="INT64", shape=(-1,))
M = ModelName("m")


def five_rows() -> Inputs:
    return Inputs(tensors=(tensor_of("x", np.arange(10, dtype=np.float32).reshape(5, 2)),))


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i2"]
)
def test_arrays_become_tensors_and_back(dtype: str) -> None:
    array = np.arange(6).reshape(3, 2).astype(dtype)
    tensor = tensor_of("x", array)
    assert tensor.shape == (3, 2)
    np.testing.assert_array_equal(array_of(tensor), array)


def test_columns_of_an_array_become_rows_of_bytes() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    np.testing.assert_array_equal(array_of(tensor_of("x", array)), array)


def test_arrays_of_text_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="x: dtype: expected one of BOOL"):
        tensor_of("x", np.array(["a"]))


def test_a_tensor_that_is_too_short_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"expected bytes for shape \[2, 2\], found 4 bytes"):
        array_of(Tensor("y", "FP32", (2, 2), b"\0\0\0\0"))


def test_a_tensor_without_numpy_type_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"datatype: expected one of BOOL.*, found BF16"):
        array_of(Tensor("y", "BF16", (1,), b"\0\0"))


def test_rows_cycle() -> None:
    (tensor,) = five_rows().take(3, 4)
    assert array_of(tensor)[:, 0].tolist() == [6, 8, 0, 2]


def test_more_rows_than_there_are_cycle_more_than_once() -> None:
    (tensor,) = five_rows().take(0, 12)
    assert array_of(tensor)[:, 0].tolist() == [0, 2, 4, 6, 8, 0, 2, 4, 6, 8, 0, 2]


def test_requests_are_encoded_once_each() -> None:
    encoded = five_rows().encode(M, samples=2, requests=1_000, timeout_us=70)
    assert [each.first_row for each in encoded] == [0, 2, 4]
    message = pb.ModelInferRequest.FromString(encoded[2].message)
    assert message.model_name == "m"
    assert message.parameters["timeout"].int64_param == 70
    assert list(message.inputs[0].shape) == [2, 2]
    assert np.frombuffer(message.raw_input_contents[0], "<f4").tolist() == [8, 9, 0, 1]


def test_no_more_requests_are_encoded_than_needed() -> None:
    assert len(five_rows().encode(M, samples=1, requests=3, timeout_us=None)) == 3


def test_random_rows_fit_the_model_and_repeat_with_the_seed() -> None:
    specs = (X, MASK, TensorSpec(name="b", datatype="BF16", shape=(-1, 3)))
    made, again, other = (random_inputs(specs, seed) for seed in (1, 1, 2))
    assert made == again != other
    assert [tensor.datatype for tensor in made.tensors] == ["FP32", "INT64", "BF16"]
    assert made.tensors[2].shape == (made.rows, 3)
    assert len(made.tensors[2].data) == made.rows * 3 * 2
    assert array_of(made.tensors[1]).min() >= 0


def test_free_axes_cannot_be_made_up() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, -1))
    with pytest.raises(InvalidSettings, match="input 'x': expected a file for its free axes"):
        random_inputs((spec,), 0)


def test_text_cannot_be_made_up() -> None:
    spec = TensorSpec(name="x", datatype="BYTES", shape=(-1, 1))
    with pytest.raises(InvalidSettings, match="input 'x': expected a file, found BYTES"):
        random_inputs((spec,), 0)


def test_a_file_with_an_array_for_each_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.ones((4, 2), np.float32), mask=np.arange(4))
    inputs = read_inputs(path, (X, MASK))
    assert [tensor.name for tensor in inputs.tensors] == ["x", "mask"]
    assert inputs.rows == 4


def test_a_file_with_the_only_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((4, 2), np.float32))
    assert read_inputs(path, (X,)).tensors[0].name == "x"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((4, 2), np.float32)}, "expected arrays mask, x, found y"),
        (
            {"x": np.ones((4, 3), np.float32), "mask": np.arange(4)},
            r"array 'x': expected shape \[rows, 2\], found \[rows, 3\]",
        ),
        (
            {"x": np.ones((4, 2)), "mask": np.arange(4)},
            "array 'x': expected FP32 elements, found float64",
        ),
        (
            {"x": np.ones((4, 2), np.float32), "mask": np.arange(5)},
            "rows: expected the same number in each array, above 0, found 4 and 5",
        ),
        (
            {"x": np.ones((0, 2), np.float32), "mask": np.arange(0)},
            "rows: expected the same number in each array, above 0, found 0",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its keywords are arrays by name
    with pytest.raises(InvalidSettings, match=message):
        read_inputs(path, (X, MASK))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"no array at all"])
def test_files_that_hold_no_arrays_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"rows\.npz: expected a \.npy or \.npz file"):
        read_inputs(path, (X, MASK))


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidSettings, match="of plain numbers"):
        read_inputs(path, (X,))

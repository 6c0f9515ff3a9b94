"""Protocol requests: what is converted, and how exactly every wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidRequest, UnknownName
from penstock.domain.ids import ModelName
from penstock.rpc.oip import ModelSignature, Query, read_infer
from protos import inference_pb2 as pb
from tests.support.frontends import echo_signature, pair_signature
from tests.support.messages import (
    echo_request,
    pair_request,
    raw_pair_request,
    typed_echo_request,
)

ECHO, PAIR = echo_signature(), pair_signature()
TYPED = {
    "BOOL": ("bool_contents", "?", [True, False, True]),
    "INT8": ("int_contents", "<i1", [-128, 0, 127]),
    "INT16": ("int_contents", "<i2", [-32768, 0, 32767]),
    "INT32": ("int_contents", "<i4", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", "<i8", [-(2**63), 0, 2**63 - 1]),
    "UINT8": ("uint_contents", "<u1", [0, 1, 255]),
    "UINT16": ("uint_contents", "<u2", [0, 1, 65535]),
    "UINT32": ("uint_contents", "<u4", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64_contents", "<u8", [0, 1, 2**64 - 1]),
    "FP32": ("fp32_contents", "<f4", [-0.5, 0.0, float("inf")]),
    "FP64": ("fp64_contents", "<f8", [-0.1, 0.0, 1e300]),
}


def one_input(datatype: str, shape: tuple[int, ...] = (-1, 3)) -> ModelSignature:
    return ModelSignature(
        name=ModelName("m"),
        version="1",
        inputs=(TensorSpec(name="x", datatype=datatype, shape=shape),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
    )


def request_of(datatype: str, shape: list[int]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def refused(request: pb.ModelInferRequest, signature: ModelSignature) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_infer(request, signature)
    return caught.value


def parameter(**value: object) -> pb.InferParameter:
    return pb.InferParameter(**value)  # type: ignore[arg-type]  # one field by name


# What is right


def test_raw_and_typed_contents_say_the_same() -> None:
    raw, typed = read_infer(echo_request(3), ECHO), read_infer(typed_echo_request(3), ECHO)
    assert raw == typed
    assert raw.samples == 3
    assert raw.inputs[0].shape == (3, 4)
    assert bytes(raw.inputs[0].data) == np.arange(12, dtype="<f4").tobytes()


def test_inputs_come_in_the_models_order_whatever_the_clients() -> None:
    request = raw_pair_request()
    mixed = pb.ModelInferRequest()
    mixed.CopyFrom(request)
    del mixed.inputs[:]
    mixed.inputs.extend(reversed(request.inputs))
    del mixed.raw_input_contents[:]
    mixed.raw_input_contents.extend(reversed(request.raw_input_contents))
    assert read_infer(mixed, PAIR).inputs == read_infer(pair_request(), PAIR).inputs


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_become_little_endian_bytes(datatype: str) -> None:
    field, dtype, values = TYPED[datatype]
    request = request_of(datatype, [1, 3])
    getattr(request.inputs[0].contents, field).extend(values)
    (tensor,) = read_infer(request, one_input(datatype)).inputs
    assert tensor.data == np.array(values, dtype=dtype).tobytes()


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_travels_raw(datatype: str) -> None:
    request = request_of(datatype, [1, 3])
    request.raw_input_contents.append(bytes(6))
    assert read_infer(request, one_input(datatype)).inputs[0].data == bytes(6)


@pytest.mark.parametrize("version", ["", "3"])
def test_the_version_may_be_left_out(version: str) -> None:
    request = pair_request()
    request.model_version = version
    assert read_infer(request, PAIR).signature is PAIR


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (parameter(int64_param=1500), 1500),
        (parameter(uint64_param=1500), 1500),
        (parameter(string_param="1500"), 1500),
        (parameter(int64_param=0), None),
    ],
)
def test_timeout_comes_as_integer_or_digits(value: pb.InferParameter, expected: int | None) -> None:
    request = echo_request()
    request.parameters["timeout"].CopyFrom(value)
    request.parameters["priority"].uint64_param = 2
    request.parameters["of the client's own"].double_param = 0.5
    query = read_infer(request, ECHO)
    assert query.timeout_us == expected
    assert query.priority == 2


def test_outputs_are_all_or_those_asked_for_in_their_order() -> None:
    request = pair_request()
    assert read_infer(request, PAIR).outputs == ("first", "second")
    request.outputs.add(name="second")
    assert read_infer(request, PAIR).outputs == ("second",)
    request.outputs.add(name="first")
    assert read_infer(request, PAIR).outputs == ("second", "first")


# What is wrong: the place, and words that must be in "expected" and "found"

Break = Callable[[pb.ModelInferRequest], object]


def set_input(index: int, **fields: object) -> Break:
    def change(request: pb.ModelInferRequest) -> None:
        for field, value in fields.items():
            if field == "shape":
                del request.inputs[index].shape[:]
                request.inputs[index].shape.extend(value)  # type: ignore[arg-type]
            else:
                setattr(request.inputs[index], field, value)

    return change


def set_parameter(key: str, value: pb.InferParameter) -> Break:
    return lambda request: request.parameters[key].CopyFrom(value)


def set_raw(request: pb.ModelInferRequest, index: int, data: bytes) -> None:
    request.raw_input_contents[index] = data


RAW = "raw_input_contents"
BROKEN: list[tuple[str, Break, str, str, str]] = [
    ("unknown input", set_input(0, name="z"), "inputs[0].name", "ids, mask", "'z'"),
    ("empty name", set_input(1, name=""), "inputs[1].name", "ids, mask", "''"),
    ("twice", set_input(1, name="ids"), "inputs[1].name", "once", "'ids' again"),
    ("missing", lambda r: r.inputs.pop(), "inputs", "'mask'", "ids"),
    ("none at all", lambda r: r.ClearField("inputs"), "inputs", "'ids'", "no inputs"),
    ("dtype", set_input(0, datatype="FP32"), "inputs[0].datatype", "INT64", "'FP32'"),
    ("no dtype", set_input(0, datatype=""), "inputs[0].datatype", "INT64", "''"),
    ("strange dtype", set_input(1, datatype="u8"), "inputs[1].datatype", "UINT8", "'u8'"),
    ("rank", set_input(0, shape=[2, 6]), "inputs[0].shape", "[-1, 2, 3]", "[2, 6]"),
    ("no shape", set_input(0, shape=[]), "inputs[0].shape", "[-1, 2, 3]", "[]"),
    ("axis", set_input(0, shape=[2, 3, 2]), "inputs[0].shape", "[-1, 2, 3]", "[2, 3, 2]"),
    ("no batch", set_input(0, shape=[0, 2, 3]), "inputs[0].shape", "from 1", "[0, 2, 3]"),
    ("minus", set_input(0, shape=[-1, 2, 3]), "inputs[0].shape", "from 1", "[-1, 2, 3]"),
    ("huge", set_input(0, shape=[2**62, 2, 3]), "inputs[0].shape", "from 1", str(2**62)),
    ("large", set_input(1, shape=[2**31 - 1, 5]), "inputs[1].shape[0]", "batch 2", str(2**31 - 1)),
    ("many axes", set_input(0, shape=[1] * 500), "inputs[0].shape", "[-1, 2, 3]", "500 axes"),
    ("batch", set_input(1, shape=[1, 5]), "inputs[1].shape[0]", "batch 2", "1"),
    ("bytes", lambda r: set_raw(r, 1, bytes(9)), f"{RAW}[1]", "10 bytes", "9 bytes"),
    ("short", lambda r: r.raw_input_contents.pop(), RAW, "2 entries", "1"),
    ("long", lambda r: r.raw_input_contents.append(b""), RAW, "2 entries", "3"),
    (
        "mixed",
        lambda r: r.inputs[1].contents.uint_contents.append(1),
        "inputs[1].contents.uint_contents",
        "no typed contents",
        "elements",
    ),
    (
        "output",
        lambda r: r.outputs.add(name="third"),
        "outputs[0].name",
        "first, second",
        "'third'",
    ),
    (
        "output twice",
        lambda r: [r.outputs.add(name="first") for _ in range(2)],
        "outputs[1].name",
        "once",
        "'first' again",
    ),
    (
        "classification",
        lambda r: (
            r.outputs.add(name="first")
            .parameters["classification"]
            .CopyFrom(parameter(int64_param=3))
        ),
        "outputs[0].parameters[classification]",
        "no classification",
        "int64_param 3",
    ),
    (
        "shared memory",
        lambda r: (
            r.inputs[0].parameters["shared_memory_region"].CopyFrom(parameter(string_param="shm"))
        ),
        "inputs[0].parameters[shared_memory_region]",
        "in the request",
        "shared memory",
    ),
    (
        "sequence",
        set_parameter("sequence_id", parameter(int64_param=4)),
        "parameters[sequence_id]",
        "stateless",
        "int64_param 4",
    ),
    *(
        (f"{key} {value!r}", set_parameter(key, value), f"parameters[{key}]", "integer", found)
        for key in ("timeout", "priority")
        for value, found in [
            (parameter(int64_param=-1), "int64_param -1"),
            (parameter(uint64_param=2**63), f"uint64_param {2**63}"),
            (parameter(double_param=1.5), "double_param 1.5"),
            (parameter(bool_param=True), "bool_param True"),
            (parameter(string_param="1e3"), "string_param '1e3'"),
            (parameter(string_param="9" * 5000), "string_param '999"),
            (parameter(string_param="²"), "string_param '²'"),
            (parameter(), "an empty parameter"),
        ]
    ),
]


@pytest.mark.parametrize(
    ("change", "place", "expected", "found"),
    [case[1:] for case in BROKEN],
    ids=[case[0] for case in BROKEN],
)
def test_each_wrong_field_is_told_by_place_expectation_and_finding(
    change: Break, place: str, expected: str, found: str
) -> None:
    request = raw_pair_request()
    change(request)
    error = refused(request, PAIR)
    assert error.place == place
    assert expected in error.expected
    assert found in error.found
    assert len(str(error)) < 500


def test_two_inputs_must_have_one_batch_size() -> None:
    request = raw_pair_request(2)
    set_input(1, shape=[1, 5])(request)
    request.raw_input_contents[1] = bytes(5)
    error = refused(request, PAIR)
    assert (error.place, error.expected, error.found) == (
        "inputs[1].shape[0]",
        "batch 2 as in ids",
        "1",
    )


def test_another_version_is_not_found() -> None:
    request = pair_request()
    request.model_version = "4"
    with pytest.raises(UnknownName, match=r"'4'; known: 3"):
        read_infer(request, PAIR)


@pytest.mark.parametrize(
    ("datatype", "value", "limits"),
    [
        ("UINT8", 300, "0..255"),
        ("UINT16", 65536, "0..65535"),
        ("INT8", -129, "-128..127"),
        ("INT16", 32768, "-32768..32767"),
    ],
)
def test_an_element_outside_its_datatype_is_named(datatype: str, value: int, limits: str) -> None:
    field = TYPED[datatype][0]
    request = request_of(datatype, [1, 3])
    getattr(request.inputs[0].contents, field).extend([0, value, 0])
    error = refused(request, one_input(datatype))
    assert error.place == f"inputs[0].contents.{field}[1]"
    assert limits in error.expected
    assert error.found == str(value)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_typed_contents_need_as_many_elements_as_the_shape(count: int) -> None:
    request = request_of("FP32", [1, 3])
    request.inputs[0].contents.fp32_contents.extend([0.0] * count)
    error = refused(request, one_input("FP32"))
    assert (error.expected, error.found) == ("3 elements for the shape", str(count))


def test_typed_contents_in_the_wrong_list_are_named() -> None:
    request = request_of("FP32", [1, 3])
    request.inputs[0].contents.fp64_contents.extend([0.0] * 3)
    error = refused(request, one_input("FP32"))
    assert error.place == "inputs[0].contents.fp64_contents"
    assert "fp32_contents" in error.expected


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_contents(datatype: str) -> None:
    request = request_of(datatype, [1, 3])
    request.inputs[0].contents.fp32_contents.extend([0.0] * 3)
    assert "raw_input_contents" in refused(request, one_input(datatype)).expected


def test_raw_booleans_are_zero_or_one() -> None:
    request = request_of("BOOL", [1, 3])
    request.raw_input_contents.append(b"\x00\x01\x02")
    assert "0 and 1" in refused(request, one_input("BOOL")).expected


def test_a_huge_declared_shape_allocates_nothing() -> None:
    request = request_of("FP64", [2**31 - 1, 2**31 - 1, 2**31 - 1])
    error = refused(request, one_input("FP64", (-1, -1, -1)))
    assert error.expected == f"{(2**31 - 1) ** 3} elements for the shape"


def test_long_names_are_cut_in_the_error() -> None:
    request = echo_request()
    request.inputs[0].name = "z" * 100_000
    assert len(str(refused(request, ECHO))) < 300


@given(st.binary(max_size=300))
def test_any_bytes_are_a_query_or_a_told_error(data: bytes) -> None:
    request = pb.ModelInferRequest()
    with suppress(DecodeError, InvalidRequest, UnknownName):
        request.MergeFromString(data)
        assert isinstance(read_infer(request, PAIR), Query)


@given(
    datatype=st.sampled_from(["FP32", "INT8", "BOOL", "", "BYTES"]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    size=st.integers(0, 64),
)
def test_only_what_fits_exactly_is_accepted(datatype: str, shape: list[int], size: int) -> None:
    request = request_of(datatype, shape)
    request.raw_input_contents.append(bytes(size))
    signature = one_input("FP32")
    fits = datatype == "FP32" and len(shape) == 2 and shape[1] == 3 and size == 12 * shape[0] > 0
    if fits:
        assert read_infer(request, signature).samples == shape[0]
    else:
        refused(request, signature)

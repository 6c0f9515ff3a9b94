"""Requests taken apart by hand: protobuf must agree, on valid and on hostile bytes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvalidRequest, PenstockError, UnknownName
from penstock.rpc.oip import ModelSignature, Query, read_infer
from penstock.rpc.oip_wire import InferReader, NotAMessage, split
from protos import inference_pb2 as pb
from tests.support.frontends import echo_signature, pair_signature
from tests.support.messages import (
    echo_request,
    pair_request,
    raw_pair_request,
    typed_echo_request,
)

SIGNATURES = {each.name: each for each in (echo_signature(), pair_signature())}


def find(name: str) -> ModelSignature:
    for known, signature in SIGNATURES.items():
        if known == name:
            return signature
    raise UnknownName("model", name, SIGNATURES)


def field(number: int, data: bytes) -> bytes:
    """Encode a field that has a length."""
    size = len(data)
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + data


def small_request(name: str, number: int) -> bytes:
    makers: list[Any] = [echo_request, typed_echo_request, raw_pair_request, pair_request]
    request: pb.ModelInferRequest = makers[number % len(makers)](1 + number % 3)
    if name:
        request.model_name = name
    return request.SerializeToString()


texts = st.binary(max_size=6) | st.sampled_from([b"echo", b"pair", b"\xff", "é".encode()])
fields = st.builds(field, st.integers(0, 15), texts | st.binary(max_size=200))
messages = st.lists(
    st.one_of(
        fields,
        fields.map(lambda each: each[:-1]),  # its length promises a byte too much
        st.builds(small_request, st.sampled_from(["", "echo"]), st.integers(0, 11)),
        st.binary(max_size=8),
        st.sampled_from([b"\x1a\x80\x00", b"\x3a\x81\x80\x80\x80\x80\x00x", b"\x8a\x00\x01x"]),
    ),
    max_size=5,
).map(b"".join)


def parsed(data: bytes) -> pb.ModelInferRequest | None:
    try:
        return pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return None


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(messages)
def test_what_is_taken_apart_is_what_protobuf_reads(data: bytes) -> None:
    parts, whole = split(data), parsed(data)
    if parts is None:
        return
    head = parsed(parts.head)
    assert (whole is not None) == (head is not None and is_text(parts.id))
    if whole is None or head is None:
        return
    assert (parts.id.decode(), [bytes(each) for each in parts.raw]) == (
        whole.id,
        list(whole.raw_input_contents),
    )
    whole.ClearField("id")
    whole.ClearField("raw_input_contents")
    assert head == whole


def outcome(read: Any, data: bytes) -> object:
    """Return what a request says, or what is told of it."""
    try:
        query: Query = read(data)
    except PenstockError as error:
        return type(error), str(error)
    inputs = [(x.name, x.datatype, x.shape, bytes(x.data)) for x in query.inputs]
    return query.id, query.head, inputs


def by_protobuf(data: bytes) -> Query:
    request = parsed(data)
    if request is None:
        raise NotAMessage
    return read_infer(request, find(request.model_name))


@given(st.lists(messages, min_size=1, max_size=4))
def test_a_reader_that_remembers_tells_the_same_as_one_that_does_not(several: list[bytes]) -> None:
    reader = InferReader(find)
    for data in several * 2:
        assert outcome(reader.read, data) == outcome(by_protobuf, data)


def changed(number: int, at: int, byte: int, end: int) -> bytes:
    data = bytearray(small_request("", number))
    data[at % len(data)] = byte
    return bytes(data[: max(1, len(data) - end)])


@given(st.integers(0, 11), st.integers(0, 400), st.integers(0, 255), st.integers(0, 2))
def test_one_changed_byte_is_judged_alike(number: int, at: int, byte: int, end: int) -> None:
    reader = InferReader(find)
    reader.read(small_request("", number))
    data = changed(number, at, byte, end)
    assert outcome(reader.read, data) == outcome(by_protobuf, data)


def test_raw_tensors_are_views_of_the_message() -> None:
    reader = InferReader(find)
    message = echo_request(2, id="a").SerializeToString()
    reader.read(message)
    (tensor,) = reader.read(message).inputs
    assert isinstance(tensor.data, memoryview)
    assert tensor.data.obj is message


def test_a_model_that_was_replaced_is_read_afresh() -> None:
    served = {"echo": echo_signature()}
    reader = InferReader(served.__getitem__)
    message = echo_request(2).SerializeToString()
    reader.read(message)
    served["echo"] = echo_signature()
    assert reader.read(message).signature is served["echo"]


def test_a_model_that_is_gone_is_not_found() -> None:
    served = dict(SIGNATURES)

    def look(name: str) -> ModelSignature:
        if name not in served:
            raise UnknownName("model", name, served)
        return find(name)

    reader = InferReader(look)
    message = echo_request(2).SerializeToString()
    reader.read(message)
    served.clear()
    with pytest.raises(UnknownName):
        reader.read(message)


def test_what_is_remembered_is_bounded() -> None:
    reader = InferReader(find)
    for number in range(1_500):
        request = echo_request(1)
        request.parameters["timeout"].int64_param = number + 1
        assert reader.read(request.SerializeToString()).timeout_us == number + 1
    long = echo_request(1)
    long.parameters["note"].string_param = "x" * 5_000
    reader.read(long.SerializeToString())
    assert len(reader._heads) <= 1_024
    assert max(map(len, reader._heads)) <= 2_048


def test_many_small_fields_are_left_to_protobuf() -> None:
    assert split(field(7, b"") * 1_000) is None
    assert split(field(1, b"a") * 10) is not None


@pytest.mark.parametrize("data", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x05abc"])
def test_bytes_that_are_no_message_are_told(data: bytes) -> None:
    with pytest.raises(NotAMessage, match="expected a protobuf message"):
        InferReader(find).read(data)


def test_typed_contents_are_not_remembered() -> None:
    reader = InferReader(find)
    reader.read(typed_echo_request(2).SerializeToString())
    assert not reader._heads
    empty = echo_request(2)
    del empty.raw_input_contents[:]
    reader.read(echo_request(2).SerializeToString())
    with pytest.raises(InvalidRequest, match="elements"):
        reader.read(empty.SerializeToString())

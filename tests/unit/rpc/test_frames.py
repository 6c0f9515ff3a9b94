"""Frames survive the wire, and nothing that comes from it can surprise us."""

from __future__ import annotations

import math
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import DATATYPE_BYTES, Tensor, byte_size
from penstock.rpc.frames import announce, announced, pack, tensors_of, unpack
from protos.link_pb2 import BatchResult, FrameHeader, Hello, RunStage, TensorHeader

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(sorted(DATATYPE_BYTES)))
    shape = draw(shapes)
    size = byte_size(datatype, shape)
    return Tensor(
        draw(st.text(max_size=5)), datatype, shape, draw(st.binary(min_size=size, max_size=size))
    )


def a_result(*given_tensors: Tensor) -> FrameHeader:
    header = FrameHeader(result=BatchResult(batch_id=7))
    for each in given_tensors:
        announce(header.result.tensors, each.name, each.datatype, each.shape, [each.data])
    return header


@given(st.lists(tensors(), max_size=4))
def test_tensors_come_back_as_they_went(sent: list[Tensor]) -> None:
    header, views = unpack(pack(a_result(*sent), [each.data for each in sent]))
    assert header.result.batch_id == 7
    received = tensors_of(announced(header), views)
    assert [(each.name, each.datatype, each.shape, bytes(each.data)) for each in received] == [
        (each.name, each.datatype, each.shape, each.data) for each in sent
    ]


@given(tensors(), st.data())
def test_parts_are_joined_in_order(sent: Tensor, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(sent.data)))
    _, (view,) = unpack(pack(a_result(sent), [sent.data[:cut], sent.data[cut:]]))
    assert bytes(view) == sent.data


def test_unpacking_copies_no_tensor() -> None:
    sent = Tensor("x", "UINT8", (3,), b"abc")
    frame = pack(a_result(sent), [sent.data])
    _, (view,) = unpack(frame)
    assert view.obj is frame


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_one_clear_error(data: bytes) -> None:
    with suppress(InvalidInput):
        header, views = unpack(data)
        assert sum(len(view) for view in views) <= len(data)
        assert header.WhichOneof("kind")


@given(st.lists(tensors(), min_size=1, max_size=3), st.data())
def test_a_damaged_frame_is_a_frame_or_one_clear_error(
    sent: list[Tensor], data: st.DataObject
) -> None:
    frame = bytearray(pack(a_result(*sent), [each.data for each in sent]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    with suppress(InvalidInput):
        header, views = unpack(damaged)
        for tensor in tensors_of(announced(header), views):
            assert tensor.size == math.prod(tensor.shape) * DATATYPE_BYTES[tensor.datatype]


def read(frame: bytes) -> None:
    header, views = unpack(frame)
    tensors_of(announced(header), views)


def framed(header: FrameHeader, rest: bytes = b"") -> bytes:
    head = header.SerializeToString()
    return struct.pack("<I", len(head)) + head + rest


def a_stage(**fields: object) -> FrameHeader:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "byte_size": 8, **fields}
    return FrameHeader(run_stage=RunStage(tensors=[TensorHeader(**tensor)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "length: expected 4 bytes, found 0 bytes"),
        (b"\xff\xff\xff\xff", "header: expected 4294967295 bytes, found 0 bytes"),
        (b"\x02\x00\x00\x00\xff\xff", "header: expected a FrameHeader, found other bytes"),
        (b"\x00\x00\x00\x00", "header: expected a known kind of frame, found none"),
        (framed(a_stage()), "tensors: expected 8 bytes, as announced, found 0 bytes"),
        (framed(a_stage(), bytes(9)), "tensors: expected 8 bytes, as announced, found 9 bytes"),
        (framed(FrameHeader(hello=Hello()), b"x"), "tensors: expected 0 bytes"),
        (framed(a_stage(shape=[-1]), bytes(8)), "tensor 'x': expected a shape without negative"),
        (framed(a_stage(shape=[1 << 62, 1 << 62]), bytes(8)), "tensor 'x': expected 85070591"),
        (framed(a_stage(datatype="BYTES"), bytes(8)), "expected a datatype of fixed width"),
        (framed(a_stage(byte_size=(1 << 64) - 1), bytes(8)), "expected 18446744073709551615 bytes"),
        (
            framed(a_stage(byte_size=4), bytes(4)),
            "tensor 'x': expected 8 bytes for FP32 [2]",
        ),
    ],
)
def test_hostile_frames_are_told_in_one_line(frame: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(frame)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

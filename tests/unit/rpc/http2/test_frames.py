"""Frames as bytes, against another implementation."""

from __future__ import annotations

import hyperframe.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode

numbers = st.integers(1, 0x7FFFFFFF)
codes = st.sampled_from(list(ErrorCode))


def theirs(sent: bytes) -> hyperframe.frame.Frame:
    frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(sent[:9]))
    assert len(sent) == frames.HEADER_BYTES + length
    frame.parse_body(memoryview(sent[9:]))
    return frame


@given(numbers, codes)
def test_a_reset(number: int, code: ErrorCode) -> None:
    frame = theirs(frames.reset_frame(number, code))
    assert isinstance(frame, hyperframe.frame.RstStreamFrame)
    assert (frame.stream_id, frame.error_code) == (number, code)


@given(numbers, codes, st.text(max_size=20))
def test_a_goaway(number: int, code: ErrorCode, reason: str) -> None:
    frame = theirs(frames.goaway_frame(number, code, reason))
    assert isinstance(frame, hyperframe.frame.GoAwayFrame)
    assert (frame.last_stream_id, frame.error_code) == (number, code)
    assert frame.additional_data == reason.encode()


@given(st.dictionaries(st.integers(1, 0xFFFF), st.integers(0, 0xFFFFFFFF), max_size=6))
def test_settings_both_ways(values: dict[int, int]) -> None:
    sent = frames.settings_frame(values.items())
    frame = theirs(sent)
    assert isinstance(frame, hyperframe.frame.SettingsFrame)
    assert frame.settings == values
    assert dict(frames.read_settings(sent[9:])) == values


@given(numbers, numbers)
def test_a_window_update_both_ways(number: int, more: int) -> None:
    sent = frames.window_update(number, more)
    frame = theirs(sent)
    assert isinstance(frame, hyperframe.frame.WindowUpdateFrame)
    assert (frame.stream_id, frame.window_increment) == (number, more)
    assert frames.read_increment(sent[9:]) == more


@given(st.binary(max_size=100), st.integers(0, 255), st.booleans())
def test_padding_and_priority_are_taken_off(data: bytes, padding: int, prioritised: bool) -> None:
    frame = hyperframe.frame.HeadersFrame(1, data=data, pad_length=padding, flags=["PADDED"])
    if prioritised:
        frame.flags.add("PRIORITY")
    payload = frame.serialize()[9:]
    flags = frames.PADDED | (frames.HAS_PRIORITY if prioritised else 0)
    assert frames.unpadded(payload, flags, prioritised=True) == data


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd", b"\xff" + b"a" * 254])
def test_more_padding_than_payload(payload: bytes) -> None:
    with pytest.raises(ConnectionFault, match="PROTOCOL_ERROR"):
        frames.unpadded(payload, frames.PADDED)


@pytest.mark.parametrize("payload", [b"", b"123", b"12345"])
def test_numbers_of_another_size(payload: bytes) -> None:
    with pytest.raises(ConnectionFault, match="FRAME_SIZE_ERROR"):
        frames.read_number(payload, "RST_STREAM")
    with pytest.raises(ConnectionFault, match="FRAME_SIZE_ERROR"):
        frames.read_increment(payload)


def test_settings_that_are_cut_short() -> None:
    with pytest.raises(ConnectionFault, match="FRAME_SIZE_ERROR"):
        list(frames.read_settings(b"12345"))


def test_the_reserved_bit_is_no_part_of_a_number() -> None:
    assert frames.stream_of(0x80000005) == 5

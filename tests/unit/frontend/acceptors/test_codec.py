"""Notices survive the way, however the stream is cut; other bytes are told apart."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.acceptors.codec import Unpacker, pack
from penstock.domain.errors import InvalidInput
from protos import acceptors_pb2 as pb
from protos.link_pb2 import StageReport

COUNTS = st.integers(0, (1 << 32) - 1)
NUMBERS = st.integers(0, (1 << 64) - 1)
NOTICES = st.one_of(
    st.builds(lambda number: pb.Notice(cancelled=number), NUMBERS),
    st.builds(lambda number: pb.Notice(delivered=number), NUMBERS),
    st.builds(lambda words: pb.Notice(refused=words), st.text()),
    st.builds(
        lambda request, samples: pb.Notice(
            arrived=pb.RequestArrival(request=request, model="m", samples=samples)
        ),
        NUMBERS,
        COUNTS,
    ),
    st.builds(
        lambda batch, detail: pb.Notice(reported=StageReport(batch_id=batch, detail=detail)),
        NUMBERS,
        st.text(),
    ),
)


@given(st.lists(NOTICES), st.lists(st.integers(1, 9)))
def test_notices_survive_a_stream_cut_anywhere(sent: list[pb.Notice], cuts: list[int]) -> None:
    data = b"".join(pack(each) for each in sent)
    unpacker = Unpacker()
    received: list[pb.Notice] = []
    for size in cuts:
        received += unpacker.feed(data[:size])
        data = data[size:]
    received += unpacker.feed(data)
    assert received == sent


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_or_wait_for_more(data: bytes) -> None:
    found: list[pb.Notice] = []
    with suppress(InvalidInput):
        found.extend(Unpacker().feed(data))
    assert sum(len(pack(each)) for each in found) <= len(data) + 4 * len(found)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xff\xff\xff", "at most 67108864 bytes, found 4294967295 bytes"),
        (b"\x01\x00\x00\x00\xff", "a Notice, found other bytes"),
        (b"\x00\x00\x00\x00", "a known kind of notice, found none"),
        (b"\x03\x00\x00\x00\xf8\x3f\x01", "a known kind of notice, found none"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        list(Unpacker().feed(data))


def test_what_came_before_the_fault_is_still_heard() -> None:
    good = pb.Notice(cancelled=7)
    found = Unpacker().feed(pack(good) + b"\xff\xff\xff\xff")
    assert next(found) == good
    with pytest.raises(InvalidInput):
        next(found)

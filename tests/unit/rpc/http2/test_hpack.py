"""Header blocks against another implementation, and blocks that are none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.rpc.http2 import huffman
from penstock.rpc.http2.frames import ConnectionFault, ErrorCode
from penstock.rpc.http2.hpack import NO_TABLE, HeaderReader, Headers, write_headers

LIMIT_BYTES = 1 << 20
names = st.sampled_from([b":path", b":method", b"grpc-timeout", b"te", b"x-own"]) | st.binary(
    min_size=1, max_size=30
)
values = st.sampled_from([b"", b"POST", b"/", b"trailers"]) | st.binary(max_size=200)
headers = st.lists(st.tuples(names, values, st.booleans()), max_size=12)
some_blocks = st.lists(
    st.tuples(headers, st.booleans(), st.none() | st.integers(0, 4096)), max_size=12
)


def a_reader(limit_bytes: int = LIMIT_BYTES) -> HeaderReader[Headers]:
    return HeaderReader(lambda read: read, limit_bytes)


def fault_of(blocks: Iterable[bytes], limit_bytes: int = LIMIT_BYTES) -> ErrorCode | None:
    """Read blocks; return what was wrong with the first that was none."""
    reader = a_reader(limit_bytes)
    try:
        for each in blocks:
            reader.read(each)
    except ConnectionFault as fault:
        return fault.code
    return None


@given(some_blocks)
def test_blocks_of_another_encoder_are_read(
    blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]],
) -> None:
    encoder, reader = hpack.Encoder(), a_reader()
    for sent, huffman_coded, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        block = encoder.encode(sent, huffman=huffman_coded)
        assert reader.read(block) == tuple((name, value) for name, value, _ in sent)


@given(st.lists(st.sampled_from([0, 1, 2]), max_size=30))
def test_a_block_that_comes_again_means_what_it_means_now(which: list[int]) -> None:
    sent = [[(b"x-own", b"1")], [(b"x-own", b"2"), (b"y", b"3")], [(b":path", b"/")]]
    encoder, reader = hpack.Encoder(), a_reader()
    for each in which:
        assert reader.read(encoder.encode(sent[each])) == tuple(sent[each])


@given(st.lists(st.tuples(names, values), max_size=12), st.booleans())
def test_another_reads_what_is_written(sent: list[tuple[bytes, bytes]], clear: bool) -> None:
    decoder = hpack.Decoder(max_header_list_size=LIMIT_BYTES)
    block = (NO_TABLE if clear else b"") + write_headers(sent)
    assert [tuple(each) for each in decoder.decode(block, raw=True)] == sent


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
@example([b"\x82\x00", b"\xff\xff\xff\xff\xff\xff\xff"])
@example([b"\x00\x81\xff\x00"])
def test_any_bytes_are_headers_or_a_fault(blocks: list[bytes]) -> None:
    assert fault_of(blocks, limit_bytes=4096) in {None, ErrorCode.COMPRESSION_ERROR}


@given(headers, st.data())
def test_a_block_that_is_cut_or_changed_is_a_fault_or_other_headers(
    sent: list[tuple[bytes, bytes, bool]], data: st.DataObject
) -> None:
    block = bytearray(hpack.Encoder().encode(sent) + b"\x82")
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(0, 255))
    cut = bytes(block[: data.draw(st.integers(0, len(block)))])
    assert fault_of([cut]) in {None, ErrorCode.COMPRESSION_ERROR}


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # the first entry of an empty table
        b"\x3f\xe2\x1f",  # a table of 4097 bytes
        b"\x82\x20",  # a new size after a header
        b"\xff\x80\x80\x80\x80\x80\x01",  # a number of too many bytes
        b"\xff",  # cut in a number
        b"\x00",  # cut before a name
        b"\x00\x05abc",  # cut in a name
        b"\x00\x01a",  # cut before a value
        b"\x00\x84\xff\xff\xff\xff\x00",  # the end of the code
        b"\x00\x82\x07\xff\x00",  # more than seven ones at the end
        b"\x00\x81\x18\x00",  # zeros at the end
    ],
)
def test_malformed_blocks(block: bytes) -> None:
    assert fault_of([block]) == ErrorCode.COMPRESSION_ERROR


def test_small_blocks_that_stand_for_long_headers_are_read_and_not_kept() -> None:
    reader = a_reader(16 << 10)
    long = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000
    assert reader.read(long) == ((b"x", b"v" * 4000),)
    tracemalloc.start()
    try:
        assert reader.read(b"\xbe" * 50_000) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert reader.read(b"\xbe") == ((b"x", b"v" * 4000),)


def test_the_table_agrees_after_headers_that_are_too_long() -> None:
    encoder, reader = hpack.Encoder(), a_reader(200)
    assert reader.read(encoder.encode([(b"a", b"1"), (b"b", b"2" * 300), (b"c", b"3")])) is None
    assert reader.read(encoder.encode([(b"c", b"3"), (b"a", b"1")])) == ((b"c", b"3"), (b"a", b"1"))


def test_what_is_kept_of_known_blocks_is_bounded() -> None:
    calls: list[Headers] = []
    reader = HeaderReader(calls.append, LIMIT_BYTES)
    for number in range(1000):
        reader.read(write_headers(((b"n", str(number).encode()),)))
    kept = [each for each in vars(reader).values() if isinstance(each, dict)]
    assert [len(each) <= 64 for each in kept] == [True]


@given(st.binary(max_size=300))
def test_huffman_reads_what_another_wrote(text: bytes) -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    assert huffman.decode(encoder.encode(text)) == text


@given(st.binary(max_size=40))
def test_huffman_reads_any_bytes_as_the_other_does(coded: bytes) -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    try:
        text = huffman.decode(coded)
    except huffman.NotHuffman:
        return
    assert encoder.encode(text) == coded

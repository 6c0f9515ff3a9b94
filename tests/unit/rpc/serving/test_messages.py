"""Messages cut anywhere, compressed, too long, and none at all."""

from __future__ import annotations

import gzip
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rpc.serving.messages import (
    MessageFault,
    MessageReader,
    MessageTooLong,
    prefixed,
)

LIMIT_BYTES = 1000


def a_reader(encoding: str = "identity", limit_bytes: int = LIMIT_BYTES) -> MessageReader:
    return MessageReader(limit_bytes, encoding)


def compressed(message: bytes) -> bytes:
    return struct.pack(">BI", 1, len(message)) + message


def read(reader: MessageReader, *pieces: bytes | memoryview) -> list[bytes]:
    return [reader.opened(each) for piece in pieces for each in reader.feed(piece)]


@given(st.lists(st.binary(max_size=LIMIT_BYTES), max_size=6), st.lists(st.integers(0, 7000)))
def test_messages_cut_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(map(prefixed, messages))
    reader, got, at = a_reader(), [], 0
    for cut in [*sorted(each for each in cuts if each < len(sent)), len(sent)]:
        piece = sent[at:cut]
        got += read(reader, memoryview(piece) if cut % 2 else piece)
        at = cut
        assert 0 <= reader.held_bytes <= LIMIT_BYTES + 5
    assert got == messages
    assert reader.held_bytes == 0


@given(st.integers(1, 40_000), st.integers(0, 100_000))
def test_large_pieces(step: int, size: int) -> None:
    sent = prefixed(bytes(size)) + prefixed(b"next")
    pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
    assert read(a_reader(limit_bytes=1 << 20), *pieces) == [bytes(size), b"next"]


def test_what_is_held_is_what_has_come() -> None:
    reader = a_reader()
    assert reader.feed(prefixed(b"abc") + b"\0\0") == [b"abc"]
    assert reader.held_bytes == 2
    assert reader.feed(b"\0\0\4ab") == []
    assert reader.held_bytes == 7


def test_many_small_pieces_take_no_more_than_their_bytes() -> None:
    size = 1 << 18
    reader = a_reader(limit_bytes=size)
    tracemalloc.start()
    try:
        for piece in [struct.pack(">BI", 0, size), *[b"ab"] * (size // 2 - 1)]:
            assert reader.feed(piece) == []
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 1.5 * size + sys.getsizeof([])
    assert reader.feed(b"ab") == [b"ab" * (size // 2)]


def test_too_long() -> None:
    assert a_reader().feed(prefixed(bytes(LIMIT_BYTES))) == [bytes(LIMIT_BYTES)]
    for head in (struct.pack(">BI", 0, LIMIT_BYTES + 1), struct.pack(">BI", 1, 0xFFFFFFFF)):
        with pytest.raises(MessageTooLong, match="1000 bytes at most"):
            a_reader().feed(head)
        reader = a_reader()
        with pytest.raises(MessageTooLong):
            read(reader, *(bytes((each,)) for each in head))


@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
def test_a_bad_flag(flag: int) -> None:
    with pytest.raises(MessageFault, match="begins with byte"):
        a_reader().feed(struct.pack(">BI", flag, 0))


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
@given(message=st.binary(max_size=LIMIT_BYTES))
def test_compressed_messages(
    encoding: str, compress: Callable[[bytes], bytes], message: bytes
) -> None:
    reader = a_reader(encoding)
    sent = compressed(compress(message)) + prefixed(message)
    assert read(reader, sent[:7], sent[7:]) == [message, message]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "message", [b"", b"nonsense", gzip.compress(b"abc", mtime=0)[:-1], zlib.compress(b"abc")[:-1]]
)
def test_what_is_not_compressed(encoding: str, message: bytes) -> None:
    with pytest.raises(MessageFault, match="not compressed with"):
        read(a_reader(encoding), compressed(message))


def test_compressed_without_a_word_how() -> None:
    with pytest.raises(MessageFault, match="grpc-encoding"):
        read(a_reader(), compressed(b"abc"))


def test_a_bomb_is_not_expanded_beyond_the_limit() -> None:
    bomb = compressed(gzip.compress(bytes(50 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLong, match="more than that"):
            read(a_reader("gzip", limit_bytes=1 << 20), bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_many_small_bombs_are_expanded_one_by_one() -> None:
    bombs = compressed(gzip.compress(bytes(1 << 20))) * 200
    reader = a_reader("gzip", limit_bytes=1 << 20)
    tracemalloc.start()
    try:
        messages = reader.feed(bombs)
        assert reader.opened(messages[0]) == bytes(1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(messages) == 200
    assert peak < 6 << 20

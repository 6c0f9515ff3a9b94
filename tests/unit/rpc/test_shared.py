"""Shared memory with an end that lies: told in words, cut off, nothing handed on."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.errors import InvalidInput
from penstock.rpc import local_socket
from penstock.rpc.carriers import LinkKind
from penstock.rpc.channels import open_channel
from penstock.rpc.frames import pack
from penstock.rpc.inlet import Inlet
from penstock.rpc.links import METHOD, SERVICE, LinkSender
from penstock.rpc.local_socket import listen, readable
from penstock.rpc.segment import Segment, open_segment
from penstock.rpc.shared_reader import SharedReader
from protos.link_pb2 import FrameHeader, Hello
from tests.support.link_ends import a_receiver, a_report, a_result

CAPACITY = 1 << 16
STAMP_BYTES = 64
FRAME = pack(*a_result(5, b"tensor"))


def region(generation: int, start: int, size: int) -> bytes:
    return b"R" + struct.pack("<QQQ", generation, start, size)


def stamped(segment: Segment, generation: int, start: int, message: bytes) -> bytes:
    """Write a region as a sender does; return what names it."""
    struct.pack_into("<QQ", segment.view, start, generation, len(message))
    begin = start + STAMP_BYTES
    segment.view[begin : begin + len(message)] = message
    return region(generation, start, len(message))


@dataclass
class Liar:
    """A sender that says what it is told to."""

    call: grpc.aio.StreamStreamCall[bytes, bytes]
    connection: socket.socket
    segment: Segment

    def say(self, message: bytes) -> None:
        self.connection.send(message)

    async def words(self) -> str:
        assert await asyncio.wait_for(self.call.code(), 5) is grpc.StatusCode.INVALID_ARGUMENT
        return await self.call.details()


@asynccontextmanager
async def a_liar(address: str) -> AsyncIterator[Liar]:
    name, listener = listen()
    segment = Segment(CAPACITY)
    segment.commit(CAPACITY)
    async with open_channel(address) as channel:
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push()
        await call.write(pack(FrameHeader(hello=Hello(sender="liar", local_socket=name))))
        await readable(listener)
        connection, _ = listener.accept()
        socket.send_fds(connection, [struct.pack("<Q", CAPACITY)], [segment.file])
        await call.initial_metadata()
        yield Liar(call, connection, segment)
        call.cancel()
    connection.close()
    listener.close()
    segment.close()


async def test_a_sender_may_speak_the_protocol_by_hand() -> None:
    async with a_receiver() as received, a_liar(received.address) as liar:
        assert received.receiver.kinds() == {"liar": LinkKind.SHARED_MEMORY}
        liar.say(b"F" + FRAME)
        liar.say(stamped(liar.segment, 1, 128, FRAME))
        liar.say(stamped(liar.segment, 9, 1024, FRAME))
        await received.frames(3)
        assert received.data == [b"tensor"] * 3
        released = b""
        while len(released) < 16:
            await asyncio.wait_for(readable(liar.connection), 5)
            released += liar.connection.recv(1000)
        assert released == struct.pack("<QQ", 1, 9)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"F", "a message or a region"),
        (b"Z" + FRAME, "a message or a region"),
        (b"R123", "a message or a region"),
        (b"F\x01", "expected 4 bytes"),
        (b"F" + FRAME[:-1], "as announced"),
        (region(0, 0, 10), "a generation after 0"),
        (region(1, 0, 0), "some bytes within"),
        (region(1, 0, CAPACITY), "some bytes within"),
        (region(1, CAPACITY, 1), "some bytes within"),
        (region(1, (1 << 64) - 1, 1), "some bytes within"),
        (region(1, 0, (1 << 64) - 1), "some bytes within"),
        (region(1, 0, 100), "generation 1 of 100 bytes"),
        (bytes(1 << 16), "a message or a region"),
    ],
)
async def test_a_sender_that_lies_is_cut_off(message: bytes, words: str) -> None:
    async with a_receiver() as received, a_liar(received.address) as liar:
        liar.say(message)
        assert words in await liar.words()
        await received.until(lambda: received.lost == ["liar"])
        assert received.numbers == []
        honest = LinkSender(received.address, "me")
        await honest.send(*a_result(1, bytes(100_000)))
        await received.frames(1)
        await honest.close()


async def test_a_generation_is_never_used_again() -> None:
    async with a_receiver() as received, a_liar(received.address) as liar:
        liar.say(stamped(liar.segment, 3, 0, FRAME))
        liar.say(stamped(liar.segment, 3, 1024, FRAME))
        assert "a generation after 3" in await liar.words()
        assert received.numbers == [5]


async def test_writing_where_somebody_reads_is_found_out() -> None:
    async with a_receiver(keep=True) as received, a_liar(received.address) as liar:
        liar.say(stamped(liar.segment, 1, 0, FRAME))
        await received.frames(1)
        stamped(liar.segment, 2, 0, FRAME)
        received.views.clear()
        assert "expected generation 1" in await liar.words()


async def test_a_sender_that_dies_before_it_publishes_has_sent_nothing() -> None:
    async with a_receiver(keep=True) as received, a_liar(received.address) as liar:
        liar.say(stamped(liar.segment, 1, 0, FRAME))
        stamped(liar.segment, 2, 1024, FRAME)
        await received.frames(1)
        liar.connection.close()
        await received.until(lambda: received.lost == ["liar"])
        assert received.numbers == [5]
        assert bytes(received.views[0]) == b"tensor"  # what is looked at stays


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"123", "whole generations"),
        (struct.pack("<Q", 77), "a region in use, found generation 77"),
        (struct.pack("<QQ", 1, 1), "a region in use, found generation 1"),
    ],
)
async def test_a_receiver_that_lies_ends_the_link(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(reader: SharedReader) -> None:
        reader._connection.send(answer)

    monkeypatch.setattr(SharedReader, "_tell_released", lie)
    async with a_receiver() as received:
        link = LinkSender(received.address, "me")
        await link.send(*a_result(1, bytes(100_000)))
        assert words in await asyncio.wait_for(link.closed, 5)


@pytest.mark.parametrize("name", ["x", "penstock-", "/tmp/.X11-unix/X0", "penstock-" + "g" * 32])
async def test_a_hello_can_name_no_socket_but_ours(name: str) -> None:
    with pytest.raises(InvalidInput, match="the name of a socket of ours"):
        local_socket.connect(name)
    async with a_receiver() as received, open_channel(received.address) as channel:
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push()
        await call.write(pack(FrameHeader(hello=Hello(sender="me", local_socket=name))))
        await call.write(pack(a_report(4)))
        await received.frames(1)
        assert received.receiver.kinds() == {"me": LinkKind.STREAM}
        call.cancel()


async def test_only_our_own_user_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    name, listener = listen()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(InvalidInput, match="expected user 54321"):
        local_socket.connect(name)
    listener.close()


@pytest.mark.parametrize("files", [0, 2])
async def test_exactly_one_file_is_taken_and_no_other_kept(files: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = set(os.listdir("/proc/self/fd"))
    socket.send_fds(theirs, [bytes(8)], [ours.fileno()] * files)
    with pytest.raises(InvalidInput, match=f"found 8 bytes and {files} files"):
        local_socket.receive_file(ours, 8)
    assert set(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()


messages = st.binary(max_size=60) | st.builds(
    region, *[st.integers(0, 200) | st.integers(0, (1 << 64) - 1)] * 3
)


@settings(deadline=None)
@given(st.lists(messages.filter(len), max_size=8), st.binary(max_size=300))
def test_any_messages_and_any_memory_end_in_words_at_worst(
    sent: list[bytes], memory: bytes
) -> None:
    async def read() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        segment = Segment(CAPACITY)
        segment.view[: len(memory)] = memory
        reader = SharedReader(ours, open_segment(os.dup(segment.file), CAPACITY))
        reader.start(Inlet("it", LinkKind.SHARED_MEMORY, lambda *_: None))
        for message in sent:
            theirs.send(message)
        theirs.close()
        fault = await asyncio.wait_for(reader.ended, 5)
        assert fault is None or "expected" in str(fault)
        reader.close()
        segment.close()

    asyncio.run(read())

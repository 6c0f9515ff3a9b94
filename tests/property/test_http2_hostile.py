"""Whatever bytes come, a connection and a session end or go on, and keep no more than they may."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.rpc.http2 import frames
from penstock.rpc.http2.connection import Limits
from penstock.rpc.http2.hpack import write_headers
from penstock.rpc.serving.messages import prefixed
from penstock.rpc.serving.session import Session
from tests.support.grpc_servers import Echo, own_server, path
from tests.support.http2_ends import GREETING, REQUEST, Recorder, some_data, split

LIMITS = Limits(
    streams=8,
    stream_window_bytes=1 << 16,
    connection_window_bytes=1 << 17,
    frame_bytes=1 << 15,
    header_bytes=1 << 10,
)
METHODS = ("Direct", "Unary", "Wait", "Collect", "Count", "Chat", "Talk", "Converse", "Refuse")


def a_head(method: str) -> bytes:
    changed = ((name, value) for name, value in REQUEST if name != b":path")
    return write_headers((*changed, (b":path", path(method).encode()), (b"grpc-timeout", b"9S")))


small = st.integers(0, 9)
payloads = (
    st.binary(max_size=60)
    | st.sampled_from([b"hold", b"refuse", b"fail", b"3 4"]).map(prefixed)
    | st.sampled_from(METHODS).map(a_head)
    | st.integers(0, 1 << 31).map(lambda number: number.to_bytes(4))
    | st.integers(0, 40_000).map(bytes)
)
any_frames = st.builds(frames.frame, st.integers(0, 11), st.integers(0, 0x2F), small, payloads)
calls = st.builds(
    lambda number, method, message, flags: (
        frames.frame(frames.HEADERS, frames.END_HEADERS, 2 * number + 1, a_head(method))
        + some_data(2 * number + 1, message, flags)
    ),
    small,
    st.sampled_from(METHODS),
    payloads,
    st.sampled_from([0, frames.END_STREAM]),
)
conversations = st.lists(calls | calls | any_frames | st.binary(max_size=40), max_size=14)
cuts = st.lists(st.integers(0, 1 << 16), max_size=6)


def cut(sent: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(each % (len(sent) + 1) for each in at), len(sent)]
    return [sent[a:b] for a, b in pairwise(places)]


@given(conversations, cuts, st.booleans())
@settings(max_examples=300)
def test_any_bytes_leave_a_connection_whole(
    sent: list[bytes], at: list[int], answering: bool
) -> None:
    end = Recorder(LIMITS)
    for piece in cut(GREETING + b"".join(sent), at):
        end.connection.receive(piece)
        if answering:
            for stream in end.connection.open_streams:
                end.connection.send(stream, b"x" * 1000)
        check_bounded(end)
    list(split(end.sent()))


@given(st.binary(max_size=200))
def test_any_bytes_instead_of_a_greeting(sent: bytes) -> None:
    end = Recorder(LIMITS)
    end.connection.receive(sent)
    assert end.connection.ended == (not frames.PREFACE.startswith(sent[:24]))
    check_bounded(end)


def check_bounded(end: Recorder) -> None:
    streams = end.connection.open_streams
    assert len(streams) <= LIMITS.streams
    rooms = vars(end.connection)
    kept, blocked = vars(rooms["_cutter"])["_rest"], vars(rooms["_outgoing"])["_blocked"]
    assert len(kept) <= LIMITS.frame_bytes + frames.HEADER_BYTES
    assert set(blocked) <= {each.number for each in streams}
    assert end.connection.queued_bytes == sum(each.unsent_bytes for each in streams)


class Wire(asyncio.Transport):
    """A transport that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@given(conversations, cuts)
@settings(max_examples=150)
def test_any_bytes_leave_a_session_whole(sent: list[bytes], at: list[int]) -> None:
    asyncio.run(converse(cut(GREETING + b"".join(sent), at)))


async def converse(pieces: list[bytes]) -> None:
    """Say all of it to a session and go; nothing may be left behind, nor have been raised."""
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    echo = Echo()
    server = own_server(echo)
    server.add_generic_rpc_handlers((echo.handler(),))
    session, wire = Session(server), Wire()
    session.connection_made(wire)
    for piece in pieces:
        if not wire.closed:
            session.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    session.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert raised == []
    assert len(asyncio.all_tasks()) == 1
    assert all(each.done() for each in echo.pending)
    assert cast("int", vars(session)["_held_bytes"]) == 0
    list(split(bytes(wire.sent)))

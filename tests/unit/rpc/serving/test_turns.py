"""One connection does not hold the event loop for as long as its answers are large."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from penstock.rpc.http2 import frames
from penstock.rpc.http2.hpack import write_headers
from penstock.rpc.serving.messages import prefixed
from penstock.rpc.serving.server import GrpcServer
from penstock.rpc.serving.session import Session
from tests.support.grpc_servers import Echo, own_server, path
from tests.support.http2_ends import OPEN, settings, some_data, split

KIB, MIB = 1 << 10, 1 << 20
ENDLESS = frames.LARGEST_WINDOW
TURN_BYTES = 512 * KIB + 16 * KIB  # ends with a whole frame


class Wire(asyncio.Transport):
    """Takes everything and notes how much was written at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


def a_session(server: GrpcServer) -> tuple[Session, Wire]:
    """Return a session with a client that opens every window."""
    session, wire = Session(server), Wire()
    session.connection_made(wire)
    session.data_received(
        frames.PREFACE
        + settings((frames.INITIAL_WINDOW_SIZE, ENDLESS))
        + frames.window_update(0, ENDLESS - frames.USUAL_WINDOW)
    )
    return session, wire


def a_call(message: bytes, number: int = 1) -> bytes:
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path("Direct").encode()),
        (b"content-type", b"application/grpc"),
    )
    sent, size = prefixed(message), 16 * KIB
    data = [some_data(number, sent[at : at + size]) for at in range(0, len(sent), size)]
    last = some_data(number, b"", frames.END_STREAM)
    return (
        frames.frame(frames.HEADERS, OPEN, number, write_headers(headers)) + b"".join(data) + last
    )


def data_of(wire: Wire) -> bytes:
    answers = split(b"".join(wire.written))
    return b"".join(each.payload for each in answers if each.kind == frames.DATA)


async def turns_until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; not much can take a thousand turns."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("still not so")


async def test_a_large_answer_leaves_in_turns() -> None:
    session, wire = a_session(own_server(Echo()))
    message = bytes(range(256)) * 12 * KIB
    session.data_received(a_call(message))
    turns = 0
    while len(data_of(wire)) < len(message):
        before = len(wire.written)
        await asyncio.sleep(0)
        assert len(wire.written) <= before + 1
        turns += 1
    assert max(map(len, wire.written)) <= TURN_BYTES
    assert turns >= len(message) // TURN_BYTES
    assert data_of(wire) == prefixed(message)
    assert not session.connection.open_streams


async def test_others_are_answered_between_the_parts_of_a_large_answer() -> None:
    server = own_server(Echo())
    (large, large_wire), (small, small_wire) = a_session(server), a_session(server)
    large.data_received(a_call(bytes(4 * MIB)))
    await turns_until(lambda: bool(large_wire.written[1:]))
    small.data_received(a_call(b"soon"))
    await turns_until(lambda: bool(data_of(small_wire)))
    assert data_of(small_wire) == prefixed(b"soon")
    assert len(data_of(large_wire)) <= 2 * MIB


async def test_nothing_more_is_read_while_much_waits_to_be_sent() -> None:
    session, wire = a_session(own_server(Echo()))
    session.data_received(a_call(bytes(3 * MIB)))
    await turns_until(lambda: bool(wire.written[1:]))
    assert not wire.reading
    await turns_until(lambda: not session.connection.has_output)
    assert wire.reading

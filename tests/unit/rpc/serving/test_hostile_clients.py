"""Clients that are slow, silent, greedy or wrong, by hand, on both event loops."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import grpc
import grpc.aio
import pytest

from penstock.rpc.http2 import frames
from penstock.rpc.http2.frames import ErrorCode
from penstock.rpc.http2.hpack import Header, write_headers
from penstock.rpc.serving.messages import prefixed
from penstock.rpc.serving.server import GrpcServer
from penstock.rpc.serving.session import Session
from tests.support.frontends import eventually
from tests.support.grpc_servers import Served, a_served_echo, path
from tests.support.http2_ends import OPEN, WHOLE, settings, some_data

MIB = 1 << 20
ENDLESS = frames.LARGEST_WINDOW


@dataclass(slots=True)
class Client:
    """One that says what it likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, *sent: bytes) -> None:
        self.writer.write(b"".join(sent))

    def pause(self) -> None:
        """Read nothing, not even from the socket."""
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self.writer.transport)

    async def frame(self, kind: int) -> tuple[int, bytes]:
        """Return the stream and the payload of the next frame of a kind."""
        async with asyncio.timeout(10):
            while True:
                head = await self.reader.readexactly(frames.HEADER_BYTES)
                high, low, found, _, number = frames.FRAME_HEADER.unpack(head)
                payload = await self.reader.readexactly(high << 16 | low)
                if found == kind:
                    return number, payload

    async def end(self) -> None:
        """Return when the server has closed the connection."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(MIB):
                    pass
            except ConnectionError:
                return


@asynccontextmanager
async def a_client(served: Served, window: int = frames.USUAL_WINDOW) -> AsyncIterator[Client]:
    """Connect and greet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    client = Client(reader, writer)
    client.say(frames.PREFACE, settings((frames.INITIAL_WINDOW_SIZE, window)))
    if window == ENDLESS:
        client.say(frames.window_update(0, ENDLESS - frames.USUAL_WINDOW))
    try:
        yield client
    finally:
        writer.transport.abort()


def head(number: int, method: str, *more: Header, flags: int = OPEN) -> bytes:
    """Begin a call."""
    usual: tuple[Header, ...] = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path(method).encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    changed = {name for name, _ in more}
    headers = (*(each for each in usual if each[0] not in changed), *more)
    return frames.frame(frames.HEADERS, flags, number, write_headers(headers))


def call(number: int, method: str, message: bytes) -> bytes:
    """Make a whole call; the message is short."""
    return head(number, method) + some_data(number, prefixed(message), frames.END_STREAM)


async def others_are_served(served: Served) -> None:
    before = served.sessions
    async with grpc.aio.insecure_channel(
        served.address, [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path("Direct"))
        assert await echo(b"well", timeout=10) == b"well"
    await eventually(lambda: served.sessions == before)


def session_of(served: Served) -> Session:
    """Return the only session."""
    assert isinstance(served.server, GrpcServer)
    (session,) = vars(served.server)["_sessions"]
    assert isinstance(session, Session)
    return session


def waiting_bytes(session: Session) -> int:
    """Return what a client has not taken yet, wherever it is."""
    transport = vars(session)["_transport"]
    in_output = sum(map(len, vars(vars(session.connection)["_outgoing"])["_output"]))
    return int(session.connection.queued_bytes + in_output + transport.get_write_buffer_size())


# ------------------------------------------------------------------------------ those who are slow


async def test_a_client_that_makes_no_room() -> None:
    """What waits for it is bounded: beyond that, calls are refused rather than answered."""
    async with a_served_echo(held_bytes=2 * MIB) as served, a_client(served, 0) as client:
        message = bytes(100_000)
        for number in range(1, 401, 2):
            client.say(head(number, "Direct"))
            client.say(*pieces(number, prefixed(message)))
        await eventually(lambda: served.sessions == 1)
        await eventually(lambda: session_of(served).connection.queued_bytes > MIB)
        await others_are_served(served)
        await eventually(lambda: b"too many unread" in bytes(vars(client.reader)["_buffer"]))
        assert waiting_bytes(session_of(served)) < 3 * MIB


async def test_calls_of_a_client_that_makes_no_room_wait_until_it_makes_some() -> None:
    async with a_served_echo(unread_bytes=2 * MIB) as served, a_client(served, 0) as client:
        for number in range(1, 5, 2):
            client.say(call(number, "Direct", b"hold"))
            await eventually(lambda: len(served.echo.pending) > number // 2)  # noqa: B023
            served.echo.pending[-1].set_result(bytes(MIB))
        await eventually(lambda: session_of(served).behind)
        for number in range(5, 41, 2):
            client.say(call(number, "Direct", b"hold"))
        client.say(frames.reset_frame(39, ErrorCode.CANCEL))
        await others_are_served(served)
        assert len(served.echo.pending) == 2
        assert waiting_bytes(session_of(served)) < 3 * MIB
        assert len(vars(session_of(served))["_behind"]) == 17
        client.say(frames.window_update(1, 1))
        await eventually(lambda: len(served.echo.pending) == 19)
        assert not vars(session_of(served))["_behind"]


async def test_no_call_waits_of_a_client_that_reads_slowly() -> None:
    async with a_served_echo(unread_bytes=1) as served, a_client(served, 0) as client:
        client.say(call(1, "Direct", bytes(1000)))
        await client.frame(frames.HEADERS)
        for number in range(3, 23, 2):
            client.say(frames.window_update(1, 1), call(number, "Direct", b"hold"))
        await eventually(lambda: len(served.echo.pending) == 10)
        assert session_of(served).connection.queued_bytes > 900


async def test_calls_that_wait_keep_to_their_deadlines_and_end_with_their_client() -> None:
    async with a_served_echo(unread_bytes=1) as served:
        async with a_client(served, 0) as client:
            client.say(call(1, "Direct", bytes(100)))
            await client.frame(frames.HEADERS)
            late = head(3, "Direct", (b"grpc-timeout", b"50m"))
            client.say(late + some_data(3, prefixed(b"late"), frames.END_STREAM))
            client.say(call(5, "Direct", b"waits"))
            number, trailers = await client.frame(frames.HEADERS)
            assert (number, b"deadline" in trailers) == (3, True)
            session = session_of(served)
            assert list(vars(session)["_behind"]) == [5]
        await eventually(lambda: not vars(session)["_behind"])


def pieces(number: int, sent: bytes) -> list[bytes]:
    size = frames.USUAL_FRAME
    cut = [sent[at : at + size] for at in range(0, len(sent), size)]
    return [
        *(some_data(number, each) for each in cut[:-1]),
        some_data(number, cut[-1], frames.END_STREAM),
    ]


async def test_a_client_that_reads_nothing_is_not_written_for() -> None:
    async with a_served_echo() as served, a_client(served, ENDLESS) as client:
        client.pause()
        client.say(call(1, "Count", b"1000 65536"))
        await eventually(lambda: served.echo.written > 10)
        await others_are_served(served)
        await asyncio.sleep(0.1)
        assert served.echo.written < 500
        assert waiting_bytes(session_of(served)) < 4 * MIB
        client.resume()
        async with asyncio.timeout(20):
            await client.reader.readexactly(1000 * 65536)
        assert served.echo.written == 1000


async def test_answers_without_a_task_for_a_client_that_reads_nothing() -> None:
    async with a_served_echo(held_bytes=4 * MIB) as served, a_client(served, ENDLESS) as client:
        client.pause()
        for number in range(1, 401, 2):
            client.say(call(number, "Direct", b"hold"))
        await eventually(lambda: len(served.echo.pending) == 200)
        for each in served.echo.pending:
            each.set_result(bytes(MIB))
            await asyncio.sleep(0)
        await eventually(lambda: waiting_bytes(session_of(served)) > 0)
        assert waiting_bytes(session_of(served)) < 8 * MIB
        await others_are_served(served)


async def test_pings_of_a_client_that_does_not_read_the_answers() -> None:
    async with a_served_echo() as served, a_client(served) as client:
        client.pause()
        flood = frames.frame(frames.PING, 0, 0, bytes(8)) * 60_000
        for _ in range(20):
            client.say(flood)
        await eventually(lambda: served.sessions == 1)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert waiting_bytes(session_of(served)) < 4 * MIB
        await others_are_served(served)


async def test_half_a_message_on_ten_connections() -> None:
    async with a_served_echo() as served:
        async with asyncio.TaskGroup() as group:
            gone = asyncio.Event()
            for method in ("Direct", "Unary", "Collect", "Chat", "Converse") * 2:
                group.create_task(half_a_message(served, method, gone))
            await eventually(lambda: served.sessions == 10)
            await others_are_served(served)
            gone.set()
        await eventually(lambda: served.sessions == 0)


async def half_a_message(served: Served, method: str, gone: asyncio.Event) -> None:
    async with a_client(served) as client:
        client.say(head(1, method), some_data(1, struct.pack(">BI", 0, MIB) + bytes(1000)))
        await gone.wait()


async def test_unfinished_requests_are_bounded() -> None:
    async with a_served_echo(held_bytes=MIB) as served, a_client(served) as client:
        half = struct.pack(">BI", 0, 60_000) + bytes(16_000)
        for number in range(1, 201, 2):
            client.say(head(number, "Direct"), some_data(number, half))
        number, trailers = await client.frame(frames.HEADERS)
        assert b"fit in memory" in trailers
        await others_are_served(served)
        assert 0 < vars(session_of(served))["_held_bytes"] <= MIB
        for each in range(1, 201, 2):
            client.say(frames.reset_frame(each, ErrorCode.CANCEL))
        await eventually(lambda: vars(session_of(served))["_held_bytes"] == 0)


async def test_a_handler_that_does_not_read_holds_its_client_back() -> None:
    async with a_served_echo() as served, grpc.aio.insecure_channel(served.address) as channel:
        slow: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(path("Slow"))
        asked = asyncio.create_task(answer_of(slow, 200, 100_000))
        await asyncio.sleep(0.3)
        assert vars(session_of(served))["_held_bytes"] < 8 * MIB
        served.echo.gate.set()
        assert await asked == b"20000000"


async def answer_of(
    slow: grpc.aio.StreamUnaryMultiCallable[bytes, bytes], number: int, size: int
) -> bytes:
    return await slow((bytes(size) for _ in range(number)), timeout=20)


# ---------------------------------------------------------------------------- those who are silent


async def test_a_client_that_is_dead_is_parted_from() -> None:
    async with a_served_echo(silence_s=0.05) as served, a_client(served) as client:
        await client.frame(frames.PING)
        await client.end()
        await eventually(lambda: served.sessions == 0)


async def test_a_client_that_never_says_what_it_speaks() -> None:
    async with a_served_echo(silence_s=0.05) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(frames.PREFACE[:10])
        await Client(reader, writer).end()
        writer.transport.abort()
        await eventually(lambda: served.sessions == 0)


async def test_an_idle_client_that_answers_stays() -> None:
    async with a_served_echo(silence_s=0.05) as served, a_client(served) as client:
        for _ in range(4):
            _, payload = await client.frame(frames.PING)
            client.say(frames.frame(frames.PING, frames.ACK, 0, payload))
        client.say(call(1, "Direct", b"still here"))
        assert (await client.frame(frames.DATA))[1] == prefixed(b"still here")


async def test_a_client_that_reads_slowly_is_alive() -> None:
    """While its answers wait we do not listen to it, so its silence says nothing."""
    async with a_served_echo(silence_s=0.1) as served, a_client(served, ENDLESS) as client:
        client.say(call(1, "Count", b"150 65536"))
        left = 150 * 65536
        async with asyncio.timeout(20):
            while left > 0:
                came = await client.reader.read(2 * MIB)
                assert came
                left -= len(came)
                await asyncio.sleep(0.005)
        assert served.echo.written == 150


# ----------------------------------------------------------------------------- those who are wrong


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (((b"grpc-timeout", b"soon"),), b"found soon"),
        (((b"grpc-timeout", b""),), b"found nothing"),
        (((b"grpc-encoding", b"br"),), b"found br"),
        (((b":path", b""),), b"a method of this server"),
        (((b":path", b"*"),), b"a method of this server"),
        (((b":path", b"/\xff%\n"),), b"%EF%BF%BD%25%0A"),
    ],
)
async def test_calls_that_are_refused(more: tuple[Header, ...], said: bytes) -> None:
    async with a_served_echo() as served, a_client(served) as client:
        client.say(head(1, "Direct", *more), some_data(1, prefixed(b"x"), frames.END_STREAM))
        assert said in (await client.frame(frames.HEADERS))[1]
        client.say(call(3, "Direct", b"right"))
        assert (await client.frame(frames.DATA))[1] == prefixed(b"right")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((b"content-type", b"application/json"), b"415"),
        ((b"content-type", b""), b"415"),
        ((b":method", b"GET"), b"405"),
        ((b":method", b""), b"405"),
    ],
)
@pytest.mark.parametrize("method", ["Direct", "Unary", "Converse", "Nothing"])
async def test_what_is_no_call(header: Header, status: bytes, method: str) -> None:
    async with a_served_echo() as served, a_client(served) as client:
        client.say(head(1, method, header, flags=WHOLE))
        assert (await client.frame(frames.HEADERS))[1] == write_headers(((b":status", status),))


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", frames.PREFACE + settings() + call(2, "Direct", b"even")]
)
async def test_what_is_no_http2(sent: bytes) -> None:
    async with a_served_echo() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(sent)
        client = Client(reader, writer)
        _, payload = await client.frame(frames.GOAWAY)
        assert payload[4:8] == struct.pack(">I", ErrorCode.PROTOCOL_ERROR)
        await client.end()
        writer.transport.abort()
        await eventually(lambda: served.sessions == 0)


async def test_calls_end_with_their_connection() -> None:
    """Those who break a rule lose the calls that they made by the rules."""
    async with a_served_echo() as served, a_client(served) as client:
        client.say(call(1, "Wait", b""), call(3, "Direct", b"hold"))
        await eventually(lambda: served.echo.entered == 1)
        client.say(some_data(0, b"x"))
        await client.end()
        await eventually(lambda: served.echo.cancelled == 1)
        assert served.echo.pending[0].cancelled()


async def test_a_request_that_is_cut_short() -> None:
    for method in ("Direct", "Unary", "Collect", "Converse"):
        async with a_served_echo() as served, a_client(served) as client:
            half = struct.pack(">BI", 0, 10) + b"half"
            client.say(head(1, method), some_data(1, half, frames.END_STREAM))
            assert b"expected" in (await client.frame(frames.HEADERS))[1]


async def test_trailers_end_a_request() -> None:
    trailers = frames.frame(frames.HEADERS, WHOLE, 1, write_headers(((b"x", b"y"),)))
    for method in ("Direct", "Unary", "Collect", "Chat", "Converse"):
        async with a_served_echo() as served, a_client(served) as client:
            client.say(head(1, method), some_data(1, prefixed(b"x")), trailers)
            assert (await client.frame(frames.DATA))[1] == prefixed(b"x")


async def test_calls_given_up_as_fast_as_they_are_made() -> None:
    async with a_served_echo() as served, a_client(served) as client:
        for number in range(1, 10_001, 2):
            method = "Wait" if number % 4 == 1 else "Direct"
            reset = frames.reset_frame(number, ErrorCode.CANCEL)
            client.say(call(number, method, b"hold"), reset)
        client.say(call(10_001, "Direct", b"the last"))
        assert (await client.frame(frames.DATA))[1] == prefixed(b"the last")
        assert all(each.cancelled() for each in served.echo.pending)
        assert served.echo.entered == served.echo.cancelled
        assert session_of(served).connection.open_streams == []


async def test_many_tiny_messages_count_for_more_than_their_bytes() -> None:
    async with a_served_echo(held_bytes=MIB) as served, a_client(served) as client:
        client.say(head(1, "Slow"))
        client.say(*[some_data(1, prefixed(b"ab") * 2000) for _ in range(20)])
        assert b"fit in memory" in (await client.frame(frames.HEADERS))[1]

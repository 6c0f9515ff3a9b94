"""Both servers over real sockets, as grpc's own clients see them."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TypeAlias

import grpc
import grpc.aio
import pytest

from penstock.rpc.serving.call import Call
from penstock.rpc.serving.library import LibraryServer
from penstock.rpc.serving.server import GrpcServer
from tests.support.frontends import eventually
from tests.support.grpc_servers import AWKWARD, LIMIT_BYTES, Served, a_served_echo, path
from tests.support.processes import ROOT

Code = grpc.StatusCode
Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
Count: TypeAlias = "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]"
Collect: TypeAlias = "grpc.aio.StreamUnaryMultiCallable[bytes, bytes]"
Talk: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
UNARY = ["Direct", "Unary"]


@pytest.fixture(params=["own", "grpcio"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with a_served_echo(request.param) as served:
        yield served


@pytest.fixture
async def own() -> AsyncIterator[Served]:
    async with a_served_echo() as served:
        yield served


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.address, UNLIMITED) as channel:
        yield channel


@pytest.fixture
async def own_channel(own: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(own.address, UNLIMITED) as channel:
        yield channel


def unnamed(channel: grpc.aio.Channel, name: str) -> Unary:
    return channel.unary_unary(name)


def unary(channel: grpc.aio.Channel, method: str) -> Unary:
    return unnamed(channel, path(method))


def collecting(channel: grpc.aio.Channel, method: str) -> Collect:
    return channel.stream_unary(path(method))


def talking(channel: grpc.aio.Channel, method: str) -> Talk:
    return channel.stream_stream(path(method))


async def call(
    channel: grpc.aio.Channel, method: str, message: bytes = b"abc", timeout_s: float | None = 10
) -> bytes:
    return await unary(channel, method)(message, timeout=timeout_s)


async def refusal(
    channel: grpc.aio.Channel, method: str, message: bytes = b"abc", timeout_s: float | None = 10
) -> tuple[Code, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, message, timeout_s)
    return caught.value.code(), caught.value.details() or ""


# ----------------------------------------------------------------------------- calls that succeed


@pytest.mark.parametrize("size", [0, 1, 16_384, LIMIT_BYTES])
async def test_messages_of_any_size(channel: grpc.aio.Channel, size: int) -> None:
    message = os.urandom(size)
    assert await call(channel, "Unary", message) == message


@pytest.mark.parametrize("size", [0, 1, 16_384, LIMIT_BYTES])
async def test_messages_without_a_task(own_channel: grpc.aio.Channel, size: int) -> None:
    message = os.urandom(size)
    assert await call(own_channel, "Direct", message) == message


async def test_streams_to_us(channel: grpc.aio.Channel) -> None:
    parts = [b"", b"a", b"bc" * 50_000, b"d"]
    assert await collecting(channel, "Collect")(iter(parts)) == b"".join(parts)
    assert await collecting(channel, "Collect")(iter(())) == b""


@pytest.mark.parametrize(("number", "size"), [(0, 1), (1, 0), (300, 10), (10, 1 << 20)])
async def test_streams_from_us(channel: grpc.aio.Channel, number: int, size: int) -> None:
    count: Count = channel.unary_stream(path("Count"))
    answers = count(b"%d %d" % (number, size))
    got = [each async for each in answers]
    assert got == [bytes([each % 256]) * size for each in range(number)]


@pytest.mark.parametrize("method", ["Chat", "Talk"])
async def test_streams_both_ways(channel: grpc.aio.Channel, method: str) -> None:
    talk = talking(channel, method)()
    for size in (0, 1, 100_000, 3):
        await talk.write(bytes(size))
        assert await talk.read() == bytes(size)
    await talk.done_writing()
    assert await talk.read() is grpc.aio.EOF
    assert await talk.code() == Code.OK


async def test_streams_without_a_task(own_channel: grpc.aio.Channel) -> None:
    parts = [b"%d" % each * 1000 for each in range(200)]
    talk = talking(own_channel, "Converse")(iter(parts))
    assert [each async for each in talk] == parts


async def test_a_thousand_calls_at_once(channel: grpc.aio.Channel) -> None:
    messages = [b"%d" % each for each in range(1000)]
    assert await asyncio.gather(*(call(channel, "Unary", each) for each in messages)) == messages


async def test_a_thousand_calls_at_once_without_tasks(own_channel: grpc.aio.Channel) -> None:
    messages = [b"%d" % each * 100 for each in range(1000)]
    answers = await asyncio.gather(*(call(own_channel, "Direct", each) for each in messages))
    assert answers == messages


async def test_many_connections(own: Served) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(own.address, options) for _ in range(50)]
    try:
        await asyncio.gather(*(call(each, "Direct") for each in channels))
        assert own.sessions == 50
    finally:
        await asyncio.gather(*(each.close() for each in channels))
    await eventually(lambda: own.sessions == 0)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", UNARY)
async def test_compressed_requests(
    own_channel: grpc.aio.Channel, method: str, compression: grpc.Compression
) -> None:
    message = bytes(300_000)
    echo = unary(own_channel, method)
    assert await echo(message, compression=compression, timeout=10) == message
    parts = collecting(own_channel, "Collect")
    assert await parts(iter([message] * 3), compression=compression) == message * 3


async def test_a_client_with_threads(served: Served) -> None:
    def talk() -> list[bytes]:
        with grpc.insecure_channel(served.address) as channel:
            one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path("Unary"))
            count: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path("Count"))
            return [one(b"1", timeout=10), *count(b"3 2", timeout=10)]

    assert await asyncio.to_thread(talk) == [b"1", b"\0\0", b"\1\1", b"\2\2"]


async def test_metadata_and_time_arrive(served: Served, channel: grpc.aio.Channel) -> None:
    sent = (("x-own", "1"), ("x-bin", b"\0,\xff"), ("x-own", "2"))
    await unary(channel, "Unary")(b"", metadata=sent, timeout=50)
    came = [tuple(each) for each in served.echo.metadata if each[0].startswith("x-")]
    assert sorted(came, key=str) == sorted(sent, key=str)  # the client puts them in other order
    # grpc's own server adds what its two clocks differ by, and its client rounds a time up
    assert 40 < (served.echo.time_remaining or 0) < 51
    await call(channel, "Unary", timeout_s=None)
    assert served.echo.time_remaining is None


# -------------------------------------------------------------------------------- calls that fail


async def test_refusals_in_any_letters(channel: grpc.aio.Channel) -> None:
    assert await refusal(channel, "Refuse") == (Code.FAILED_PRECONDITION, AWKWARD)


async def test_refusals_without_a_task(own_channel: grpc.aio.Channel) -> None:
    assert await refusal(own_channel, "Direct", b"refuse") == (Code.FAILED_PRECONDITION, AWKWARD)
    assert await refusal(own_channel, "Direct", b"late refusal") == (Code.ABORTED, "late")
    assert (await refusal(own_channel, "Direct", b"cancel"))[0] == Code.CANCELLED


@pytest.mark.parametrize(
    ("method", "message"),
    [("Fail", b"abc"), ("Direct", b"fail"), ("Direct", b"late failure"), ("Converse", b"fail")],
)
async def test_failures_are_told_without_their_reasons(
    own_channel: grpc.aio.Channel, method: str, message: bytes
) -> None:
    code, details = await refusal(own_channel, method, message)
    assert code == Code.INTERNAL
    assert "log" in details


async def test_a_handler_whose_work_is_cancelled_still_answers(
    own_channel: grpc.aio.Channel,
) -> None:
    assert (await refusal(own_channel, "Stumble"))[0] == Code.CANCELLED
    assert (await refusal(own_channel, "Converse", b"cancel"))[0] == Code.INTERNAL


async def test_what_is_not_served(channel: grpc.aio.Channel) -> None:
    for each in (path("Nothing"), "/no.Service/Unary", "/", "nothing"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unnamed(channel, each)(b"", timeout=10)
        assert caught.value.code() == Code.UNIMPLEMENTED


async def test_a_long_name_that_is_not_served(own_channel: grpc.aio.Channel) -> None:
    code, details = await refusal(own_channel, "€" * 2000)
    assert code == Code.UNIMPLEMENTED
    # Three times as much on its way; above 8 KiB gRPC's client gives some answers up, by chance.
    assert len(details.encode()) <= 1000


@pytest.mark.parametrize("method", ["Unary", "Collect"])
async def test_a_message_over_the_limit(channel: grpc.aio.Channel, method: str) -> None:
    code, _ = await refusal(channel, method, bytes(LIMIT_BYTES + 1))
    assert code == Code.RESOURCE_EXHAUSTED
    assert await call(channel, "Unary") == b"abc"


async def test_a_message_over_the_limit_without_a_task(own_channel: grpc.aio.Channel) -> None:
    for method in ("Direct", "Converse"):
        code, details = await refusal(own_channel, method, bytes(LIMIT_BYTES + 1))
        assert code == Code.RESOURCE_EXHAUSTED
        assert str(LIMIT_BYTES) in details


async def test_a_compressed_bomb(own_channel: grpc.aio.Channel) -> None:
    bomb, gzip = bytes(LIMIT_BYTES + 1), grpc.Compression.Gzip
    for method in ("Direct", "Unary", "Converse"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(own_channel, method)(bomb, compression=gzip, timeout=10)
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED
    assert await call(own_channel, "Direct") == b"abc"


async def test_more_messages_than_one(own_channel: grpc.aio.Channel) -> None:
    for method in UNARY:
        for parts in ([], [b"1", b"2"]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collecting(own_channel, method)(iter(parts), timeout=10)
            assert caught.value.code() == Code.INVALID_ARGUMENT


async def test_metadata_that_is_too_long_harms_nobody_else(own_channel: grpc.aio.Channel) -> None:
    held = asyncio.create_task(call(own_channel, "Wait", timeout_s=2))
    await asyncio.sleep(0.05)
    long = (("x", "y" * 30_000),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(own_channel, "Direct")(b"", metadata=long, timeout=10)
    assert caught.value.code() == Code.RESOURCE_EXHAUSTED
    assert await call(own_channel, "Direct") == b"abc"
    assert not held.done()
    held.cancel()


# -------------------------------------------------------------------------------- calls given up


async def test_a_deadline_passes(served: Served, channel: grpc.aio.Channel) -> None:
    await channel.channel_ready()  # the time to connect counts too
    assert (await refusal(channel, "Wait", timeout_s=0.5))[0] == Code.DEADLINE_EXCEEDED
    await eventually(lambda: served.echo.cancelled == 1)


async def test_a_deadline_passes_here_alone(own: Served, own_channel: grpc.aio.Channel) -> None:
    """The client means to wait for ever, but said otherwise."""
    for method, message in (("Wait", b""), ("Direct", b"hold")):
        echo = unary(own_channel, method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(message, metadata=(("grpc-timeout", "30m"),))
        assert caught.value.code() == Code.DEADLINE_EXCEEDED
    assert own.echo.cancelled == 1
    assert own.echo.pending[0].cancelled()


async def test_a_client_cancels(served: Served, channel: grpc.aio.Channel) -> None:
    asked = asyncio.create_task(call(channel, "Wait"))
    await eventually(lambda: served.echo.entered == 1)
    asked.cancel()
    await eventually(lambda: served.echo.cancelled == 1)
    assert await call(channel, "Unary") == b"abc"


async def test_a_client_cancels_what_has_no_task(
    own: Served, own_channel: grpc.aio.Channel
) -> None:
    asked = asyncio.create_task(call(own_channel, "Direct", b"hold"))
    await eventually(lambda: len(own.echo.pending) == 1)
    asked.cancel()
    await eventually(own.echo.pending[0].cancelled)


async def test_a_client_cancels_a_stream(own: Served, own_channel: grpc.aio.Channel) -> None:
    talk = talking(own_channel, "Converse")()
    for _ in range(3):
        await talk.write(b"hold")
    await eventually(lambda: len(own.echo.pending) == 3)
    talk.cancel()
    await eventually(lambda: all(each.cancelled() for each in own.echo.pending))


@pytest.mark.parametrize("how", ["close", "kill"])
async def test_a_client_goes_amid_calls(served: Served, how: str) -> None:
    program = (
        "import grpc, sys\n"
        f"channel = grpc.insecure_channel({served.address!r})\n"
        f"call = channel.unary_unary({path('Wait')!r})\n"
        "calls = [call.future(b'') for _ in range(5)]\n"
        "sys.stdin.read()\n"
        "channel.close()\n"
    )
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdin=asyncio.subprocess.PIPE
    )
    try:
        await eventually(lambda: served.echo.entered == 5)
        if how == "kill":
            client.kill()
        elif client.stdin:
            client.stdin.close()
        await eventually(lambda: served.echo.cancelled == 5)
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()


# --------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("wire", ["own", "grpcio"])
async def test_a_stop_lets_open_calls_finish(wire: str) -> None:
    async with (
        a_served_echo(wire) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        asked = asyncio.create_task(call(channel, "Wait"))
        await eventually(lambda: served.echo.entered == 1)
        stopped = asyncio.create_task(served.server.stop(10))
        await asyncio.sleep(0.02)
        assert (await refusal(channel, "Unary", timeout_s=5))[0] == Code.UNAVAILABLE
        assert not stopped.done()
        served.echo.gate.set()
        assert await asked == b"abc"
        await asyncio.wait_for(stopped, 5)


@pytest.mark.parametrize("wire", ["own", "grpcio"])
async def test_a_stop_does_not_wait_for_ever(wire: str) -> None:
    async with (
        a_served_echo(wire) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        asked = asyncio.create_task(refusal(channel, "Wait"))
        await eventually(lambda: served.echo.entered == 1)
        await served.server.stop(0.05)
        assert (await asked)[0] in {Code.UNAVAILABLE, Code.CANCELLED}
        await eventually(lambda: served.echo.cancelled == 1)


async def test_a_stop_ends_when_the_last_call_is_given_up() -> None:
    async with (
        a_served_echo() as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        asked = asyncio.create_task(call(channel, "Wait"))
        await eventually(lambda: served.echo.entered == 1)
        stopped = asyncio.create_task(served.server.stop(60))
        await asyncio.sleep(0.02)
        asked.cancel()
        await asyncio.wait_for(stopped, 5)
        assert served.sessions == 0


async def test_an_idle_client_does_not_hold_a_stop_up() -> None:
    async with (
        a_served_echo() as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        await call(channel, "Direct")
        await asyncio.wait_for(served.server.stop(60), 5)


@pytest.mark.parametrize("wire", ["own", "grpcio"])
async def test_a_port_that_is_taken(wire: str) -> None:
    async with a_served_echo(wire) as served:
        for other in (GrpcServer(1), LibraryServer(1)):
            with pytest.raises(OSError, match=r".+"):
                await other.listen("127.0.0.1", served.port, shared=False)
            await other.stop(None)


async def test_several_share_a_port() -> None:
    first, second = GrpcServer(1), GrpcServer(1)
    port = await first.listen("127.0.0.1", 0, shared=True)
    assert await second.listen("127.0.0.1", port, shared=True) == port
    for each in (first, second):
        await each.start()
        await each.stop(None)


async def test_nothing_is_left_behind(own: Served) -> None:
    before = len(asyncio.all_tasks()), threading.active_count()
    async with grpc.aio.insecure_channel(own.address) as channel:
        await call(channel, "Unary")
        await call(channel, "Direct")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, "Wait", timeout_s=0.02)
    await eventually(lambda: own.sessions == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= before[0])
    gc.collect()
    assert not [each for each in calls_alive() if not each.over]


def calls_alive() -> Iterator[Call]:
    return (each for each in gc.get_objects() if isinstance(each, Call))

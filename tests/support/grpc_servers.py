"""A small service behind either server, with what its handlers saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import grpc
import grpc.aio

from penstock.rpc.serving.direct import Asked, Caller, Refusal
from penstock.rpc.serving.lane import Conversation
from penstock.rpc.serving.library import LibraryServer
from penstock.rpc.serving.server import GrpcServer

SERVICE = "test.Echo"
LIMIT_BYTES = 4 << 20
AWKWARD = "100 % naïve – “quoted”\n\x7f€"
# The stubs make a context generic in messages; here they are bytes.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


@dataclass(eq=False)
class Echo:
    """The service.

    Attributes:
        pending: outcomes of requests to `Held` that are not answered.
        entered, cancelled: how often `Wait` was.
    """

    pending: list[asyncio.Future[bytes]] = field(default_factory=list)
    entered: int = 0
    cancelled: int = 0
    written: int = 0
    time_remaining: float | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    # Without a task

    def ask(self, message: bytes, caller: Caller) -> Asked[bytes]:
        """Return what was sent; refuse or fail if that is asked for."""
        self.time_remaining = caller.time_remaining()
        outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if message == b"refuse":
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, AWKWARD)
        if message == b"fail":
            raise ValueError(message)
        if message == b"hold":
            self.pending.append(outcome)
        elif message == b"cancel":
            outcome.cancel()
        else:
            outcome.set_result(message)
        return Asked(outcome, self.answer)

    def answer(self, message: bytes) -> bytes:
        if message == b"late refusal":
            raise Refusal(grpc.StatusCode.ABORTED, "late")
        if message == b"late failure":
            raise ValueError(message)
        return message

    # With one

    async def Unary(self, message: bytes, context: Context) -> bytes:
        self.time_remaining = context.time_remaining()
        self.metadata = tuple(context.invocation_metadata() or ())
        return message

    async def Collect(self, messages: AsyncIterator[bytes], _context: Context) -> bytes:
        return b"".join([each async for each in messages])

    async def Count(self, message: bytes, _context: Context) -> AsyncIterator[bytes]:
        number, size = map(int, message.split())
        for each in range(number):
            self.written = each + 1
            yield bytes([each % 256]) * size

    async def Chat(self, messages: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        async for each in messages:
            yield each

    async def Talk(self, _messages: object, context: Context) -> None:
        """Read and write by hand."""
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    async def Wait(self, message: bytes, _context: Context) -> bytes:
        self.entered += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return message

    async def Slow(self, messages: AsyncIterator[bytes], _context: Context) -> bytes:
        """Read nothing before the gate opens."""
        await self.gate.wait()
        return b"%d" % sum([len(each) async for each in messages])

    async def Refuse(self, _message: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, AWKWARD)

    async def Fail(self, message: bytes, _context: Context) -> bytes:
        raise ValueError(message)

    async def Stumble(self, _message: bytes, _context: Context) -> bytes:
        """Wait for something that somebody else cancels."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        return await future

    def handler(self) -> grpc.GenericRpcHandler:
        unary, streams = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            **{each: unary(getattr(self, each)) for each in ("Unary", "Wait", "Refuse", "Fail")},
            "Stumble": unary(self.Stumble),
            "Collect": grpc.stream_unary_rpc_method_handler(self.Collect),
            "Slow": grpc.stream_unary_rpc_method_handler(self.Slow),
            "Count": grpc.unary_stream_rpc_method_handler(self.Count),
            "Chat": streams(self.Chat),
            "Talk": streams(self.Talk),
        }
        return grpc.method_handlers_generic_handler(SERVICE, table)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    echo: Echo
    server: GrpcServer | LibraryServer
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def sessions(self) -> int:
        """Open connections, if the server is ours."""
        return len(vars(self.server)["_sessions"])


def own_server(echo: Echo, **limits: Any) -> GrpcServer:
    """Return our server, with other limits for each session if wanted."""
    server = GrpcServer(LIMIT_BYTES)
    server.limits = replace(server.limits, **limits)
    server.answer_directly(path("Direct"), echo.ask)
    server.converse(path("Converse"), Conversation(echo.ask, limit=8))
    return server


@asynccontextmanager
async def a_served_echo(wire: str = "own", **limits: Any) -> AsyncIterator[Served]:
    """Serve until the block ends."""
    echo = Echo()
    server: GrpcServer | LibraryServer
    server = own_server(echo, **limits) if wire == "own" else LibraryServer(LIMIT_BYTES)
    server.add_generic_rpc_handlers((echo.handler(),))
    port = await server.listen("127.0.0.1", 0, shared=False)
    await server.start()
    try:
        yield Served(echo, server, port)
    finally:
        await server.stop(None)

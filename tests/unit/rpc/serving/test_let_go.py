"""What a call was answered from is gone with its answer: it may be memory that others wait for."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TypeAlias

import grpc.aio

from penstock.rpc.serving.direct import Asked, Caller
from penstock.rpc.serving.server import GrpcServer
from tests.support.grpc_servers import LIMIT_BYTES, path

Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


class Outcome:
    """Something that can be watched."""


async def test_outcomes_do_not_wait_for_garbage_collection() -> None:
    outcomes: list[weakref.ref[Outcome]] = []

    def ask(_message: bytes, _caller: Caller) -> Asked[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        outcome = Outcome()
        outcomes.append(weakref.ref(outcome))
        future.set_result(outcome)
        return Asked(future, lambda _: b"answer")

    server = GrpcServer(LIMIT_BYTES)
    server.answer_directly(path("Direct"), ask)
    port = await server.listen("127.0.0.1", 0, shared=False)
    await server.start()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Call = channel.unary_unary(path("Direct"))
            for _ in range(3):
                assert await call(b"", timeout=10) == b"answer"
            assert [each() for each in outcomes] == [None, None, None]
    finally:
        gc.enable()
        await server.stop(None)

"""The same server as `server`, by grpc's own: slower, and known to every client there is.

Knows how grpc is set up, and nothing of what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc.aio

from penstock.domain.units import Bytes
from penstock.rpc.serving.direct import Refusal
from penstock.rpc.serving.lane import Conversation, Lane
from penstock.rpc.serving.offer import Offer

# The stubs make a context generic in messages that are known by descriptor only.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# A saturated process accepts calls faster than it reads them. From 1,000 on gRPC would end some of
# them at random with a bare CANCELLED; the dispatcher says better why a request is refused.
_BACKLOG = (
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


async def converse(context: Context, how: Conversation) -> None:
    """Answer one stream; returns when it is over.

    Raises:
        Refusal: it could not be trusted to its end; all before that is answered.
    """
    said: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
    moved = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(_read_stream(context, how, said, moved))
        while isinstance(answer := await said.get(), bytes):
            await context.write(answer)
            moved.set()
        reader.cancel()
    if answer is not None:
        raise answer


async def _read_stream(
    context: Context,
    how: Conversation,
    said: asyncio.Queue[bytes | Exception | None],
    moved: asyncio.Event,
) -> None:
    """Take messages to the end and say how that came, after the last answer."""
    lane = Lane(how, context, said.put_nowait, moved.set, said.put_nowait)
    end: Exception | None = None
    try:
        while end is None and (message := await context.read()) is not grpc.aio.EOF:
            end = _taken(lane, message)
            await _until(lambda: not lane.full and said.qsize() < how.limit, moved)
        await _until(lambda: lane.empty, moved)
        said.put_nowait(end)
    finally:
        lane.abandon()


def _taken(lane: Lane, message: bytes) -> Refusal | None:
    """Submit a message; return why nothing that follows can be trusted, or None."""
    try:
        lane.take(message)
    except Refusal as refusal:
        return refusal
    return None


async def _until(holds: Callable[[], bool], moved: asyncio.Event) -> None:
    """Return when something holds, which can only change when something moved."""
    while not holds():
        moved.clear()
        await moved.wait()


class LibraryServer(Offer):
    """A server that is not listening yet. Must be made and used inside a running event loop."""

    def __init__(self, max_message_bytes: Bytes) -> None:
        super().__init__()
        self._max_message_bytes = max_message_bytes
        self._server: grpc.aio.Server | None = None

    async def listen(self, host: str, port: int, *, shared: bool) -> int:
        """Take a port and return it; nobody is let in yet.

        Args:
            port: 0 for any free one.
            shared: other processes may listen there too.

        Raises:
            OSError: it is taken.
        """
        self._server = grpc.aio.server(
            handlers=self._handlers,
            options=[
                *_BACKLOG,
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", self._max_message_bytes),
                ("grpc.so_reuseport", int(shared)),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
        )
        try:
            return self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def start(self) -> None:
        """Let clients in."""
        if self._server is not None:
            await self._server.start()

    async def stop(self, grace_s: float | None) -> None:
        """Take no more calls, let those that are open finish, and close every connection.

        Args:
            grace_s: how long they may take; None: no time at all.
        """
        if self._server is not None:
            await self._server.stop(grace_s)

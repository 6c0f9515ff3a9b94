"""A gRPC server on asyncio's own transports, for one port.

Takes the same handlers as `grpc.aio` does, and calls that need no task (`direct`). Why there is
one: docs/decisions/0023. Knows methods by their paths and nothing of what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import grpc

from penstock.domain.units import Bytes
from penstock.rpc.serving.call import Call, CallStream
from penstock.rpc.serving.conversing import ConversingCall
from penstock.rpc.serving.direct import Ask, DirectCall
from penstock.rpc.serving.handled import HandledCall, Handler
from penstock.rpc.serving.head import CallHead
from penstock.rpc.serving.lane import Conversation
from penstock.rpc.serving.offer import Offer
from penstock.rpc.serving.session import Session, SessionLimits

# Requests that have not come to their end, beside the largest one.
_UNFINISHED_BYTES = 192 << 20
_BACKLOG = 1024
_ABORT_S = 1.0  # an aborted transport says so in the next turn of the loop
_EVERYWHERE = "::"  # compared with, never bound to unasked


class GrpcServer(Offer):
    """A server that is not listening yet. Must be made and used inside a running event loop.

    Attributes:
        limits: of each session.
    """

    def __init__(self, max_message_bytes: Bytes) -> None:
        super().__init__()
        self.limits = SessionLimits(
            message_bytes=max_message_bytes, held_bytes=max_message_bytes + _UNFINISHED_BYTES
        )
        self._sessions: set[Session] = set()
        self._empty = asyncio.Event()
        self._direct: dict[str, Ask] = {}
        self._conversations: dict[str, Conversation] = {}
        self._found: dict[str, Handler] = {}  # by path
        self._listener: asyncio.Server | None = None
        self._stopping = False

    # What it answers

    def answer_directly(self, path: str, ask: Ask) -> None:
        """Answer a method of one message and one answer without a task."""
        self._direct[path] = ask

    def converse(self, path: str, how: Conversation) -> None:
        """Answer the streams of a method without a task."""
        self._conversations[path] = how

    def new_call(self, session: Session, stream: CallStream, head: CallHead) -> Call | None:
        """Return a call of a method; None if there is no such method."""
        limit_bytes = self.limits.message_bytes
        ask = self._direct.get(head.path)
        if ask is not None:
            return DirectCall(session, stream, head, limit_bytes, ask)
        conversation = self._conversations.get(head.path)
        if conversation is not None:
            return ConversingCall(session, stream, head, limit_bytes, conversation)
        handler = self._found.get(head.path) or self._find(head)
        if handler is None:
            return None
        return HandledCall(session, stream, head, limit_bytes, handler)

    def _find(self, head: CallHead) -> Handler | None:
        details = _Details(head)
        for each in self._handlers:
            handler = each.service(details)
            if handler is not None:
                self._found[head.path] = handler
                return handler
        return None

    # Life

    async def listen(self, host: str, port: int, *, shared: bool) -> int:
        """Take a port and return it; nobody is let in yet.

        Args:
            port: 0 for any free one.
            shared: other processes may listen there too.

        Raises:
            OSError: it is taken.
        """
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Session(self),
            await _addresses(host, port),
            port,
            reuse_port=shared or None,
            backlog=_BACKLOG,
            start_serving=False,
        )
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def start(self) -> None:
        """Let clients in."""
        if self._listener is not None:
            await self._listener.start_serving()

    async def stop(self, grace_s: float | None) -> None:
        """Take no more calls, let those that are open finish, and close every connection.

        Args:
            grace_s: how long they may take; None: no time at all.
        """
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        for session in list(self._sessions):
            session.leave()
        await self._emptied(grace_s or 0.0)
        for session in list(self._sessions):
            session.abort()
        await self._emptied(_ABORT_S)

    async def _emptied(self, limit_s: float) -> None:
        """Return when no session is left, or after so long."""
        if self._sessions and limit_s:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), limit_s)

    def joined(self, session: Session) -> None:
        """Keep a connection; one that was let in just before the end is told to go."""
        self._sessions.add(session)
        if self._stopping:
            session.leave()

    def parted(self, session: Session) -> None:
        """Forget one."""
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()


class _Details(grpc.HandlerCallDetails):
    """What a generic handler wants to know of a call."""

    def __init__(self, head: CallHead) -> None:
        self.method = head.path
        self.invocation_metadata = head.metadata


async def _addresses(host: str, port: int) -> list[str] | None:
    """Return the addresses of a host; of several only one, if each would get a port of its own."""
    bare = host.strip("[]")
    if bare == _EVERYWHERE:
        return None if port else [bare]
    found = await asyncio.get_running_loop().getaddrinfo(bare, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    return addresses if port else addresses[:1]

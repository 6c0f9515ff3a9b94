"""Calls that a handler answers in a task of its own, as `grpc.aio` would run it.

To the handler a call looks like grpc's context, as far as our services and grpc's own need it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from penstock.domain.units import Bytes
from penstock.rpc.serving.call import CallStream, Session
from penstock.rpc.serving.direct import FAILED, ONE_MESSAGE, Refusal
from penstock.rpc.serving.head import CallHead
from penstock.rpc.serving.streamed import StreamedCall

# The stubs make handlers generic in messages that are known by descriptor only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Message: TypeAlias = Any

_log = logging.getLogger(__name__)


class HandledCall(StreamedCall):
    """A call and the task that answers it. Must be made inside a running event loop."""

    def __init__(
        self,
        session: Session,
        stream: CallStream,
        head: CallHead,
        limit_bytes: Bytes,
        handler: Handler,
    ) -> None:
        super().__init__(session, stream, head, limit_bytes)
        self._handler = handler
        self._waiter: asyncio.Future[None] | None = None
        self._sent: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._run())

    # What a handler may ask

    async def read(self) -> Message:
        """Return the next message, or `grpc.aio.EOF` after the last."""
        message = await self._next()
        return grpc.aio.EOF if message is None else self._decoded(message)

    async def write(self, message: Message) -> None:
        """Send a message; returns when there is room for another."""
        encode = self._handler.response_serializer
        self.say(encode(message) if encode else message)
        if self._stream.unsent:
            await self._until_sent()
        await self._session.drained()

    async def _until_sent(self) -> None:
        """Wait for room; several writers may."""
        if self._sent is None or self._sent.done():
            self._sent = asyncio.get_running_loop().create_future()
            self._stream.on_drained = partial(_resolve, self._sent)
        await asyncio.shield(self._sent)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with a status."""
        raise Refusal(code, details)

    # What comes

    def _came(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _resolve(waiter)

    async def _next(self) -> bytes | None:
        """Return the next message; None after the last."""
        while not self._unread:
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pop()

    # The task

    async def _run(self) -> None:
        try:
            await self._serve()
        except Refusal as refusal:
            self._task = None
            self.refuse(refusal.code, refusal.details)
        except asyncio.CancelledError:
            # The call is over, or what the handler waited for was cancelled.
            self._task = None
            self.refuse(grpc.StatusCode.CANCELLED, "")
            raise
        except Exception:
            self._task = None
            _log.exception("%s failed", self._head.path)
            self.refuse(grpc.StatusCode.INTERNAL, FAILED)

    async def _serve(self) -> None:
        handler = self._handler
        asked = self._messages() if handler.request_streaming else await self._only_message()
        if handler.response_streaming:
            await self._stream_answers(asked)
        else:
            method: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
            answer = await method(asked, self)
            encode = handler.response_serializer
            self.say(encode(answer) if encode else answer)
        self.finish()

    async def _stream_answers(self, asked: Message) -> None:
        """Let the handler write, or write what it yields."""
        handler = self._handler
        method: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        answers = method(asked, self)
        if not hasattr(answers, "__aiter__"):
            await answers
            return
        async for answer in answers:
            await self.write(answer)

    async def _messages(self) -> AsyncIterator[Message]:
        while (message := await self._next()) is not None:
            yield self._decoded(message)

    async def _only_message(self) -> Message:
        message = await self._next()
        if message is None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{ONE_MESSAGE}, found none")
        if await self._next() is not None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{ONE_MESSAGE}, found more")
        return self._decoded(message)

    def _decoded(self, message: bytes) -> Message:
        decode = self._handler.request_deserializer
        return decode(message) if decode else message

    def _drop_work(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    """Tell whoever waits, if anybody does."""
    if not future.done():
        future.set_result(None)

"""Typed calls between penstock's own processes. Only a worker's attachment so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc.aio

from penstock.domain.errors import PenstockError
from penstock.rpc.channels import open_channel
from protos.control_pb2 import WorkerCommand, WorkerMessage
from protos.control_pb2_grpc import ControlStub

_Call: TypeAlias = grpc.aio.StreamStreamCall[WorkerMessage, WorkerCommand]


class FrontendLost(PenstockError):
    """The frontend cannot be reached, or went away."""


class Attachment:
    """A worker's conversation with the frontend."""

    def __init__(self, address: str, call: _Call) -> None:
        self._address = address
        self._call = call
        self._writing = asyncio.Lock()

    async def send(self, message: WorkerMessage) -> None:
        """Tell the frontend; several tasks may.

        Raises:
            FrontendLost: it went away.
        """
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._lost(error) from error

    async def commands(self) -> AsyncIterator[WorkerCommand]:
        """Yield what the frontend wants, until it ends the conversation.

        Raises:
            FrontendLost: it went away.
        """
        try:
            async for command in self._call:
                yield command
        except grpc.aio.AioRpcError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> FrontendLost:
        details = error.details() if isinstance(error, grpc.aio.AioRpcError) else None
        return FrontendLost(f"frontend {self._address}: {details or error}")


@asynccontextmanager
async def attached(address: str) -> AsyncIterator[Attachment]:
    """Open a worker's conversation with the frontend at host:port; it ends with the context."""
    async with open_channel(address) as channel:
        call: _Call = ControlStub(channel).Attach()
        try:
            yield Attachment(address, call)
        finally:
            call.cancel()

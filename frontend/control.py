"""The control service: the wire side of membership. Thin; decides only that silence is a loss."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import grpc.aio

from frontend.membership import Member, Membership
from penstock.domain.units import US_PER_SECOND
from protos.control_pb2 import Refused, WorkerCommand, WorkerMessage
from protos.control_pb2_grpc import ControlServicer

_SILENT_HEARTBEATS = 5

_Context: TypeAlias = grpc.aio.ServicerContext[WorkerMessage, WorkerCommand]


class ControlService(ControlServicer):
    """One conversation per worker, for the worker's whole life."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._silence_s = _SILENT_HEARTBEATS * membership.heartbeat_us / US_PER_SECOND

    async def Attach(self, _: object, context: _Context) -> None:  # the name gRPC calls
        """Talk with one worker until either side ends it."""
        first = await self._next(context)
        if first is None or not first.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message is a hello")
        member = self._membership.enter(first.hello)
        if isinstance(member, str):
            await context.write(WorkerCommand(refused=Refused(reason=member)))
            return
        reading = asyncio.create_task(self._hear(member, context))
        try:
            while (command := await member.commands.get()) is not None:
                await context.write(command)
        finally:
            reading.cancel()
            self._membership.leave(member, "the connection is lost")

    async def _hear(self, member: Member, context: _Context) -> None:
        reason = "it is lost"
        try:
            while (message := await self._next(context)) is not None:
                self._membership.hear(member, message)
            reason = "it said goodbye"
        except TimeoutError:
            reason = f"it was silent for {self._silence_s:g} s"
        finally:
            self._membership.leave(member, reason)

    async def _next(self, context: _Context) -> WorkerMessage | None:
        """Return the next message, or None at the end.

        Raises:
            TimeoutError: there was none for too long.
        """
        async with asyncio.timeout(self._silence_s):
            message = await context.read()
        return message if isinstance(message, WorkerMessage) else None

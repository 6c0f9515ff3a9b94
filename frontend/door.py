"""The port that clients knock at: the protocol's service, health and reflection.

Knows which services there are and which server offers them; nothing of what they answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from frontend.servicer import ENCODED, Desk, InferenceServicer
from frontend.settings import OWN_WIRE
from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes
from penstock.rpc.handlers import handlers_of
from penstock.rpc.serving.library import LibraryServer
from penstock.rpc.serving.server import GrpcServer
from penstock.rpc.shutdown import bounded
from protos import inference_pb2

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _SERVICE.full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# Answers are complete when the service stops: this is for their last bytes, and for streams
# that idle clients hold open.
GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """How the port is opened.

    Attributes:
        port: 0 for any free one.
        wire: who speaks HTTP/2: `OWN_WIRE` or grpc's.
        shared: whether other processes listen on the same port, each for its part of the clients.
    """

    host: str
    port: int
    max_message_bytes: Bytes
    reflection: bool
    wire: str = OWN_WIRE
    shared: bool = False


class Door:
    """One process's end of the inference port; health says no until it is told otherwise.

    Must be made inside a running event loop.
    """

    def __init__(self, desk: Desk, settings: DoorSettings) -> None:
        self._settings = settings
        self._health = health.HealthServicer()
        self._server: GrpcServer | LibraryServer
        servicer = InferenceServicer(desk)
        if settings.wire == OWN_WIRE:
            self._server = GrpcServer(settings.max_message_bytes)
            self._server.answer_directly(f"/{SERVICE}/ModelInfer", servicer.ask)
            self._server.converse(f"/{SERVICE}/ModelStreamInfer", servicer.conversation)
        else:
            self._server = LibraryServer(settings.max_message_bytes)
        self._offer(servicer)

    def _offer(self, servicer: InferenceServicer) -> None:
        server = self._server
        server.add_generic_rpc_handlers((handlers_of(servicer, _SERVICE, ENCODED),))
        # Both take as much of grpc's server as the two functions call.
        library = cast("grpc.aio.Server", server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, library)
        if self._settings.reflection:
            names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            servicer_of_names = reflection.aio.ReflectionServicer(names)
            add_ServerReflectionServicer_to_server(servicer_of_names, library)

    async def listen(self) -> int:
        """Take the port and return it; nobody is answered yet.

        Raises:
            PenstockError: it is taken.
        """
        await self.show(serving=False)
        settings = self._settings
        try:
            return await self._server.listen(settings.host, settings.port, shared=settings.shared)
        except OSError as error:
            raise self._taken() from error

    def _taken(self) -> PenstockError:
        where = f"{self._settings.host}:{self._settings.port}"
        return PenstockError(f"cannot listen on {where}: is it taken?")

    async def start(self) -> None:
        """Answer from now on.

        Raises:
            PenstockError: somebody else took the port in the meantime.
        """
        try:
            await self._server.start()
        except OSError as error:
            raise self._taken() from error

    async def show(self, *, serving: bool) -> None:
        """Set what health says."""
        status = health_pb2.HealthCheckResponse.SERVING
        if not serving:
            status = health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def retire(self) -> None:
        """Let health say no, for good."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, insisted: asyncio.Event) -> None:
        """Send the last bytes and close the port; at once if somebody insists."""
        await bounded(self._server.stop(GRACE_S), GRACE_S, insisted)
        await self._server.stop(None)

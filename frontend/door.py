"""The port that clients knock at: the protocol's service, health and reflection.

Knows which services there are and how the server is set up; nothing of what they answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from frontend.servicer import ENCODED, Desk, InferenceServicer
from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes
from penstock.rpc.handlers import handlers_of
from penstock.rpc.shutdown import bounded
from protos import inference_pb2

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = _SERVICE.full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# Answers are complete when the service stops: this is for their last bytes, and for streams
# that idle clients hold open.
GRACE_S = 1.0

# A saturated process accepts calls faster than it reads them. From 1,000 on gRPC would end some of
# them at random with a bare CANCELLED; the dispatcher says better why a request is refused.
_BACKLOG = (
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSettings:
    """How the port is opened.

    Attributes:
        port: 0 for any free one.
        shared: whether other processes listen on the same port, each for its part of the clients.
    """

    host: str
    port: int
    max_message_bytes: Bytes
    reflection: bool
    shared: bool = False


class Door:
    """One process's end of the inference port; health says no until it is told otherwise.

    Must be made inside a running event loop.
    """

    def __init__(self, desk: Desk, settings: DoorSettings) -> None:
        self._settings = settings
        self._health = health.HealthServicer()
        self._server = self._new_server(desk)

    def _new_server(self, desk: Desk) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            options=[
                *_BACKLOG,
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", int(settings.shared)),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ]
        )
        handlers = handlers_of(InferenceServicer(desk), _SERVICE, ENCODED)
        server.add_generic_rpc_handlers((handlers,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            names = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server

    async def listen(self) -> int:
        """Take the port and return it; nobody is answered yet.

        Raises:
            PenstockError: it is taken.
        """
        await self.show(serving=False)
        where = f"{self._settings.host}:{self._settings.port}"
        try:
            return self._server.add_insecure_port(where)
        except RuntimeError as error:
            raise PenstockError(f"cannot listen on {where}: is it taken?") from error

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

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

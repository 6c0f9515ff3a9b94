"""Async client of the Open Inference Protocol v2 over gRPC.

The only module of the client that knows gRPC. Works with any server of the protocol, not only
with ours. Knows nothing of load, retries or SLOs: one call is one attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

import grpc

from client.messages import (
    Answer,
    ModelFacts,
    Tensors,
    infer_message,
    read_answer,
    read_facts,
)
from penstock.domain.errors import PenstockError
from penstock.domain.units import US_PER_SECOND, Micros
from protos import inference_pb2 as pb
from protos import inference_pb2_grpc

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_UNLIMITED = -1


class RequestFailed(PenstockError):
    """A call that ended with a status instead of an answer.

    Args:
        status: name of the gRPC status code, such as ``DEADLINE_EXCEEDED``.
        details: what the server, or gRPC itself, said.
    """

    def __init__(self, status: str, details: str) -> None:
        self.status = status
        self.details = details
        super().__init__(f"{status}: {details}" if details else status)


class EncodedStream:
    """A stream of requests and answers that are encoded already.

    Args:
        call: the stream.
    """

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call

    async def write(self, request: bytes) -> None:
        """Send an encoded ``ModelInferRequest`` as soon as the stream takes it.

        Raises:
            RequestFailed: the stream broke.
        """
        with _told_as_failure():
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Tell the server that no request follows.

        Raises:
            RequestFailed: the stream broke.
        """
        with _told_as_failure():
            await self._call.done_writing()

    async def read(self) -> bytes | None:
        """Return the next encoded ``ModelStreamInferResponse``; None at the end.

        Raises:
            RequestFailed: the stream broke.
        """
        with _told_as_failure():
            answer = await self._call.read()
        return answer if isinstance(answer, bytes) else None


class InferenceClient:
    """Connections to one server; use it as ``async with InferenceClient(…) as client``.

    Args:
        address: ``host:port``, or any name gRPC resolves.
        connections: TCP connections; calls take them in turn.
    """

    def __init__(self, address: str, *, connections: int = 1) -> None:
        self._address = address
        self._connections = connections
        self._next = 0
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: list[inference_pb2_grpc.GRPCInferenceServiceStub] = []
        self._encoded_calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = []
        self._encoded_streams: list[grpc.aio.StreamStreamMultiCallable[bytes, bytes]] = []

    async def __aenter__(self) -> Self:
        """Open the channels; connections follow with the first calls or `wait_connected`."""
        for number in range(self._connections):
            channel = grpc.aio.insecure_channel(self._address, options=_channel_options(number))
            self._channels.append(channel)
            self._stubs.append(inference_pb2_grpc.GRPCInferenceServiceStub(channel))
            self._encoded_calls.append(channel.unary_unary(_INFER))
            self._encoded_streams.append(channel.stream_stream(_STREAM))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections; calls under way are cancelled."""
        for channel in self._channels:
            await channel.close()

    async def wait_connected(self, timeout_us: Micros) -> None:
        """Wait until every connection stands.

        Raises:
            RequestFailed: some did not in time.
        """
        try:
            async with asyncio.timeout(timeout_us / US_PER_SECOND):
                await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        except TimeoutError:
            waited = f"no connection to {self._address} within {timeout_us / US_PER_SECOND:g} s"
            raise RequestFailed("UNAVAILABLE", waited) from None

    async def infer(
        self,
        model: str,
        tensors: Tensors,
        *,
        deadline_us: Micros | None = None,
        timeout_us: Micros | None = None,
        version: str = "",
        request_id: str = "",
        outputs: tuple[str, ...] = (),
    ) -> Answer:
        """Ask a model.

        Args:
            model: its name.
            tensors: inputs as arrays by name, or as tensors.
            deadline_us: give the call up after this time; the server hears of it.
            timeout_us: tell the server how long an answer is of use, and wait for its word.
            version: empty for the one that is served.
            request_id: echoed in the answer.
            outputs: names of those wanted; none for all.

        Raises:
            RequestFailed: there is no answer.
            InvalidRequest: an array has a type the protocol does not know.
        """
        message = infer_message(
            model,
            tensors,
            version=version,
            request_id=request_id,
            outputs=outputs,
            timeout_us=timeout_us,
        )
        with _told_as_failure():
            reply = await self._stub().ModelInfer(message, timeout=_seconds(deadline_us))
        return read_answer(reply)

    async def infer_encoded(self, request: bytes, *, deadline_us: Micros, turn: int) -> bytes:
        """Send a request that is encoded already and return the answer undecoded.

        For load: the sender's own work must not show in the latencies it measures.

        Args:
            request: an encoded ``ModelInferRequest``.
            deadline_us: give the call up after this time, above 0.
            turn: picks the connection.

        Raises:
            RequestFailed: there is no answer.
        """
        call = self._encoded_calls[turn % len(self._encoded_calls)]
        with _told_as_failure():
            return await call(request, timeout=deadline_us / US_PER_SECOND)

    @asynccontextmanager
    async def encoded_stream(self) -> AsyncIterator[EncodedStream]:
        """Open a stream for encoded requests; it ends with the block."""
        call = self._encoded_streams[0]()
        try:
            yield EncodedStream(call)
        finally:
            call.cancel()

    async def stream(
        self, messages: AsyncIterable[pb.ModelInferRequest]
    ) -> AsyncIterator[Answer | RequestFailed]:
        """Ask over one stream; a refused request yields its error and the stream goes on.

        Args:
            messages: from `infer_message`.

        Raises:
            RequestFailed: the stream itself broke.
        """
        with _told_as_failure():
            async for reply in self._stub().ModelStreamInfer(messages):
                if reply.error_message:
                    yield RequestFailed("UNKNOWN", reply.error_message)
                else:
                    yield read_answer(reply.infer_response)

    async def facts(self, model: str, *, deadline_us: Micros | None = None) -> ModelFacts:
        """Return what the server says of a model: tensors, and its SLO if it tells.

        Raises:
            RequestFailed: the server does not know the model, or does not answer.
        """
        stub, seconds = self._stub(), _seconds(deadline_us)
        with _told_as_failure():
            metadata = await stub.ModelMetadata(
                pb.ModelMetadataRequest(name=model), timeout=seconds
            )
        try:
            with _told_as_failure():
                reply = await stub.ModelConfig(pb.ModelConfigRequest(name=model), timeout=seconds)
        except RequestFailed as failure:
            if failure.status != grpc.StatusCode.UNIMPLEMENTED.name:
                raise
            return read_facts(metadata)  # an extension that other servers may lack
        return read_facts(metadata, reply.config)

    async def models(self, *, deadline_us: Micros | None = None) -> tuple[str, ...]:
        """Return the names of the models the server lists, ready or not.

        Raises:
            RequestFailed: the server keeps no list, or does not answer.
        """
        with _told_as_failure():
            index = await self._stub().RepositoryIndex(
                pb.RepositoryIndexRequest(), timeout=_seconds(deadline_us)
            )
        return tuple(model.name for model in index.models)

    async def ready(self, model: str = "", *, deadline_us: Micros | None = None) -> bool:
        """Say whether the server, or one of its models, is ready.

        Raises:
            RequestFailed: the server does not know the model, or does not answer.
        """
        stub, seconds = self._stub(), _seconds(deadline_us)
        with _told_as_failure():
            if model:
                reply = await stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=seconds)
            else:
                reply = await stub.ServerReady(pb.ServerReadyRequest(), timeout=seconds)
        return bool(reply.ready)

    async def health(self, service: str = "", *, deadline_us: Micros | None = None) -> str:
        """Return the word of ``grpc.health.v1``, such as ``SERVING`` or ``NOT_SERVING``.

        Args:
            service: empty for the whole server.
            deadline_us: give up after this time.

        Raises:
            RequestFailed: the server does not know the service, or does not answer.
        """
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub = health_pb2_grpc.HealthStub(self._channels[0])
        with _told_as_failure():
            reply = await stub.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=_seconds(deadline_us)
            )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def _stub(self) -> inference_pb2_grpc.GRPCInferenceServiceStub:
        self._next += 1
        return self._stubs[self._next % len(self._stubs)]


def _channel_options(number: int) -> list[tuple[str, int]]:
    """Return options that keep channels to one address from sharing a TCP connection."""
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("penstock.connection", number),
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.max_receive_message_length", _UNLIMITED),
    ]


def _seconds(duration_us: Micros | None) -> float | None:
    return None if duration_us is None else duration_us / US_PER_SECOND


@contextmanager
def _told_as_failure() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise RequestFailed(error.code().name, error.details() or "") from error

"""What the port offers, by both wires, to grpc's client and to one that shares nothing with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from frontend.door import HEALTH_SERVICE, SERVICE
from protos import inference_pb2 as pb
from tests.support.frontends import Running, a_running_frontend, eventually
from tests.support.messages import echo_request

Stub: TypeAlias = Any  # generated without types
Answer = health_pb2.HealthCheckResponse
Ask = health_pb2.HealthCheckRequest


@pytest.fixture(params=["own", "grpcio"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with a_running_frontend(wire=request.param) as running:
        await eventually(lambda: list(running.readiness) == [True])
        yield running


@asynccontextmanager
async def grpclib_channel(running: Running) -> AsyncIterator[Channel]:
    host, _, port = running.addresses.inference.partition(":")
    channel = Channel(host, int(port))
    try:
        yield channel
    finally:
        channel.close()


async def test_health_is_watched(running: Running) -> None:
    stub: Stub = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(Ask(service=SERVICE), timeout=10)
    assert (await watch.read()).status == Answer.SERVING
    running.backend.lose_all()
    assert (await watch.read()).status == Answer.NOT_SERVING
    watch.cancel()


async def test_health_of_what_is_not_there(running: Running) -> None:
    stub: Stub = health_pb2_grpc.HealthStub(running.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(Ask(service="no.Service"), timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(Ask(service="no.Service"), timeout=10)
    assert (await watch.read()).status == Answer.SERVICE_UNKNOWN
    watch.cancel()


async def test_reflection(running: Running) -> None:
    stub: Stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"),
    ]
    services, file, none = [
        each async for each in stub.ServerReflectionInfo(iter(asked), timeout=10)
    ]
    names = {each.name for each in services.list_services_response.service}
    assert {SERVICE, HEALTH_SERVICE} <= names
    assert file.file_descriptor_response.file_descriptor_proto
    assert none.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_another_client_asks(running: Running) -> None:
    async with grpclib_channel(running) as channel:
        check = UnaryUnaryMethod(channel, f"/{HEALTH_SERVICE}/Check", Ask, Answer)
        assert (await check(Ask(), timeout=10)).status == Answer.SERVING
        infer = UnaryUnaryMethod(
            channel, f"/{SERVICE}/ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse
        )
        answers = await asyncio.gather(
            *(infer(echo_request(id=str(each)), timeout=10) for each in range(50))
        )
        assert [each.id for each in answers] == [str(each) for each in range(50)]


async def test_another_client_streams(running: Running) -> None:
    async with grpclib_channel(running) as channel:
        stream = StreamStreamMethod(
            channel,
            f"/{SERVICE}/ModelStreamInfer",
            pb.ModelInferRequest,
            pb.ModelStreamInferResponse,
        )
        answers = await stream([echo_request(id=str(each)) for each in range(100)], timeout=10)
        assert [each.infer_response.id for each in answers] == [str(each) for each in range(100)]


async def test_another_client_watches(running: Running) -> None:
    async with grpclib_channel(running) as channel:
        watch = UnaryStreamMethod(channel, f"/{HEALTH_SERVICE}/Watch", Ask, Answer)
        async with watch.open(timeout=10) as stream:
            await stream.send_message(Ask(service=SERVICE), end=True)
            answer = await stream.recv_message()
            assert answer is not None
            assert answer.status == Answer.SERVING
            await stream.cancel()


@pytest.mark.parametrize(
    ("name", "request_", "status"),
    [
        ("ModelInfer", echo_request(name="nobody"), Status.NOT_FOUND),
        ("ModelInfer", pb.ModelInferRequest(), Status.NOT_FOUND),
        ("Nothing", pb.ModelInferRequest(), Status.UNIMPLEMENTED),
    ],
)
async def test_another_client_is_refused(
    running: Running, name: str, request_: Message, status: Status
) -> None:
    async with grpclib_channel(running) as channel:
        method: UnaryUnaryMethod[Message, Message] = UnaryUnaryMethod(
            channel, f"/{SERVICE}/{name}", type(request_), pb.ModelInferResponse
        )
        with pytest.raises(GRPCError) as caught:
            await method(request_, timeout=10)
        assert caught.value.status == status

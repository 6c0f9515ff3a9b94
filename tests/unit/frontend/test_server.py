"""One frontend as a whole: health, reflection, pages, draining."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import (
    reflection_pb2,
    reflection_pb2_grpc,
)

from frontend.door import SERVICE
from penstock.domain.errors import PenstockError, UnknownName
from penstock.scheduling.events import Event
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.frontends import Running, a_running_frontend, eventually
from tests.support.messages import echo_request

Stub: TypeAlias = Any  # generated without types
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(running: Running, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(running.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def page(running: Running, path: str, method: str = "GET") -> tuple[int, str]:
    """Fetch a page; return status and body."""
    host, _, port = running.addresses.metrics.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


# Health and readiness


async def test_health_is_not_serving_until_every_model_has_a_route() -> None:
    async with a_running_frontend(join=False) as running:
        assert await health(running) == NOT_SERVING
        assert await health(running, SERVICE) == NOT_SERVING
        assert (await page(running, "/readyz"))[0] == 503
        assert (await page(running, "/healthz"))[0] == 200
        running.backend.join_all()
        await eventually(lambda: list(running.readiness) == [True])
        assert await health(running) == SERVING
        assert await health(running, SERVICE) == SERVING
        assert (await page(running, "/readyz"))[0] == 200
        running.backend.lose_all()
        await eventually(lambda: list(running.readiness) == [True, False])
        assert await health(running) == NOT_SERVING


async def test_health_of_an_unknown_service_is_not_found() -> None:
    async with a_running_frontend() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(running, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("reflection", [True, False])
async def test_services_are_listed_only_if_wanted(reflection: bool) -> None:
    async with a_running_frontend(reflection=reflection) as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([ask]))
        if not reflection:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            return
        names = {each.name for each in (await call.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names


# Pages


async def test_metrics_count_requests_by_outcome() -> None:
    async with a_running_frontend() as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        await stub.ModelInfer(echo_request(3))
        hasty = echo_request()
        hasty.parameters["timeout"].int64_param = 1
        for wrong in (hasty, echo_request(name="none")):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ModelInfer(wrong)
        status, body = await page(running, "/metrics")
        lines = set(body.splitlines())
        assert status == 200
        assert {
            'penstock_requests_total{model="echo",outcome="answered"} 1.0',
            'penstock_requests_total{model="echo",outcome="deadline"} 1.0',
            'penstock_requests_total{model="pair",outcome="answered"} 0.0',
            'penstock_slo_met_total{model="echo"} 1.0',
            'penstock_slo_missed_total{model="echo",reason="deadline"} 1.0',
            'penstock_requests_refused_total{status="NOT_FOUND"} 1.0',
            'penstock_request_duration_seconds_count{model="echo"} 1.0',
            'penstock_queueing_delay_seconds_count{model="echo"} 1.0',
            'penstock_batch_size_bucket{le="3.0",model="echo"} 1.0',
            'penstock_batch_size_bucket{le="2.0",model="echo"} 0.0',
            'penstock_requests_in_flight{model="echo"} 0.0',
            'penstock_waiting_samples{model="echo"} 0.0',
            'penstock_ready_instances{gpu_class="fast",model="echo",pool="echo.fast"} 2.0',
        } <= lines
        compute = "penstock_stage_compute_seconds_sum"
        assert f'{compute}{{gpu_class="slow",model="echo",pool="echo.slow"}} 0.001' in lines
        assert any(line.startswith("penstock_build_info{version=") for line in lines)
        assert "python_info" not in body  # nothing from the library's global registry


async def test_the_status_page_says_the_same_to_people_and_programs() -> None:
    async with a_running_frontend() as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        await stub.ModelInfer(echo_request(3))
        state = json.loads((await page(running, "/status.json"))[1])
        assert (state["ready"], state["draining"], state["emulated"]) == (True, False, False)
        assert [each["model"] for each in state["models"]] == ["echo", "pair"]
        assert state["models"][0]["answered"] == 1
        assert [each["ready_instances"] for each in state["pools"]] == [1, 2, 1, 2]
        assert state["workers"][0]["worker"] == "loopback"
        status, html = await page(running, "/")
        assert status == 200
        assert all(word in html for word in ("echo.slow", "loopback", "status.json"))


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/none", "GET", 404), ("/metrics", "POST", 405), ("/healthz?x=1", "GET", 200)],
)
async def test_other_pages_are_refused(path: str, method: str, status: int) -> None:
    async with a_running_frontend() as running:
        assert (await page(running, path, method))[0] == status
        assert await page(running, "/healthz", "HEAD") == (200, "")


@pytest.mark.parametrize("sent", [b"", b"GET", b"\x00" * 100, b"GET / HTTP/1.1\r\n" * 10_000])
async def test_a_broken_http_client_harms_nobody(sent: bytes) -> None:
    async with a_running_frontend() as running:
        host, _, port = running.addresses.metrics.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        writer.write_eof()
        with suppress(ConnectionError):  # the server may close before all was sent
            assert (await reader.read())[:12] in (b"", b"HTTP/1.1 431")
        writer.close()
        assert (await page(running, "/healthz"))[0] == 200


# Draining


async def test_a_drain_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async with a_running_frontend(delay_s=1.0, drain_pause_s=0.3) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        accepted = [asyncio.ensure_future(stub.ModelInfer(echo_request(2))) for _ in range(2)]
        await eventually(lambda: running.frontend.pending == 2)
        draining = asyncio.create_task(running.frontend.drain(asyncio.Event()))
        await asyncio.sleep(0.01)
        assert await health(running) == NOT_SERVING
        accepted.append(asyncio.ensure_future(stub.ModelInfer(echo_request(2))))  # in the pause
        await eventually(lambda: running.frontend.pending == 3)
        await eventually(lambda: running.frontend.closed)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(echo_request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await draining == 0
        for call in accepted:
            assert (await call).raw_output_contents[0] == echo_request(2).raw_input_contents[0]


async def test_a_drain_is_bounded_and_a_second_signal_ends_it() -> None:
    async with a_running_frontend(hold=True, drain_limit_s=30) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        call = asyncio.ensure_future(stub.ModelInfer(echo_request()))
        await eventually(lambda: running.frontend.pending == 1)
        insisted = asyncio.Event()
        draining = asyncio.create_task(running.frontend.drain(insisted))
        await eventually(lambda: running.frontend.closed)
        assert not draining.done()
        insisted.set()
        assert await asyncio.wait_for(draining, 3) == 1
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_a_drain_ends_when_its_limit_has_passed() -> None:
    async with a_running_frontend(hold=True, drain_limit_s=0.05) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        call = asyncio.ensure_future(stub.ModelInfer(echo_request()))
        await eventually(lambda: running.frontend.pending == 1)
        assert await asyncio.wait_for(running.frontend.drain(asyncio.Event()), 5) == 1
        with pytest.raises(grpc.aio.AioRpcError):
            await call


# Starting


async def test_a_taken_port_is_told_in_one_line() -> None:
    async with a_running_frontend() as running:
        port = int(running.addresses.inference.rpartition(":")[2])
        with pytest.raises(PenstockError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with a_running_frontend(port=port):
                pass
        metrics_port = int(running.addresses.metrics.rpartition(":")[2])
        with pytest.raises(PenstockError, match=f"cannot listen on 127.0.0.1:{metrics_port}"):
            async with a_running_frontend(metrics_port=metrics_port):
                pass


async def test_an_unknown_policy_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match="reservation"):
        async with a_running_frontend(policy="best"):
            pass


async def test_the_log_sees_every_event() -> None:
    entries: list[Event] = []
    async with a_running_frontend(log=lambda _now, event, _effects: entries.append(event)) as one:
        stub: Stub = GRPCInferenceServiceStub(one.channel)
        await stub.ModelInfer(echo_request(1))
    kinds = [type(each).__name__ for each in entries]
    assert kinds[:2] == ["PlanApplied", "InstanceJoined"]
    assert [kind for kind in kinds if kind.startswith(("Request", "Batch", "Stage"))] == [
        "RequestArrived",
        "StageFinished",
        "StageFinished",
        "BatchFinished",
    ]


async def test_server_metadata_is_answered_before_any_instance_has_joined() -> None:
    async with a_running_frontend(join=False) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "penstock"
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready

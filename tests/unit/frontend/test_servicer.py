"""The service over a real server and a real dispatcher, with answers made on the spot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest

from penstock import __version__
from protos import inference_pb2 as pb
from protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.frontends import Running, a_catalogue, a_running_frontend, eventually
from tests.support.messages import (
    echo_request,
    pair_request,
    raw_pair_request,
    typed_echo_request,
)

Stub: TypeAlias = Any  # generated without types
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with a_running_frontend() as running:
        yield running


@pytest.fixture
def stub(running: Running) -> Stub:
    return GRPCInferenceServiceStub(running.channel)


async def refusal(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# Metadata


async def test_the_server_tells_what_it_is(stub: Stub) -> None:
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    told = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (told.name, told.version) == ("penstock", __version__)
    assert set(told.extensions) == {
        "statistics",
        "schedule_policy",
        "model_configuration",
        "system_shared_memory",
    }


async def test_a_model_tells_its_tensors(stub: Stub) -> None:
    told = await stub.ModelMetadata(pb.ModelMetadataRequest(name="pair"))
    assert (told.name, told.platform, list(told.versions)) == ("pair", "penstock", ["3"])
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
        ("ids", "INT64", [-1, 2, 3]),
        ("mask", "UINT8", [-1, 5]),
    ]
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="pair", version="3"))).config
    assert config.max_batch_size == 4
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("ids", pb.TYPE_INT64, [2, 3]),
        ("mask", pb.TYPE_UINT8, [5]),
    ]
    assert config.dynamic_batching.default_queue_policy.default_timeout_microseconds == 2_000_000
    assert config.parameters["emulated"].string_value == "false"


@pytest.mark.parametrize("call", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(("name", "version"), [("none", ""), ("pair", "1")])
async def test_unknown_models_and_versions_are_not_found(
    stub: Stub, call: str, name: str, version: str
) -> None:
    request = getattr(pb, f"{call}Request")(name=name, version=version)
    assert (await refusal(getattr(stub, call)(request))).code() is NOT_FOUND


async def test_readiness_follows_the_instances(running: Running, stub: Stub) -> None:
    async def ready(name: str, version: str = "") -> bool:
        answer = await stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))
        return bool(answer.ready)

    assert await ready("echo")
    assert await ready("pair", "3")
    assert not await ready("pair", "1")
    assert not await ready("none")
    running.backend.lose_all()
    assert not await ready("echo")
    assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    assert [(each.name, each.version, each.state) for each in index.models] == [
        ("echo", "1", "UNAVAILABLE"),
        ("pair", "3", "UNAVAILABLE"),
    ]
    assert "echo.slow" in index.models[0].reason
    assert not (await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
    error = await refusal(stub.ModelInfer(echo_request()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "echo.slow" in (error.details() or "")
    running.backend.join_all()
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [each.state for each in index.models] == ["READY", "READY"]


@pytest.mark.parametrize("call", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_loading_is_refused_in_words(stub: Stub, call: str) -> None:
    error = await refusal(getattr(stub, call)(getattr(pb, f"{call}Request")(model_name="echo")))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "plan" in (error.details() or "")


# Inference


@pytest.mark.parametrize("samples", [1, 4, 11])
async def test_answers_are_the_requests_own_rows(
    running: Running, stub: Stub, samples: int
) -> None:
    request = echo_request(samples, id="mine")
    answers = await asyncio.gather(*(stub.ModelInfer(request) for _ in range(5)))
    for answer in answers:
        assert answer.id == "mine"
        assert list(answer.outputs[0].shape) == [samples, 4]
        assert answer.raw_output_contents[0] == request.raw_input_contents[0]
    assert sum(running.backend.batches) == 5 * samples
    assert max(running.backend.batches) <= 4


async def test_typed_and_raw_requests_are_answered_alike(stub: Stub) -> None:
    raw, typed = (
        await stub.ModelInfer(echo_request(3)),
        await stub.ModelInfer(typed_echo_request(3)),
    )
    assert raw == typed


async def test_several_inputs_and_chosen_outputs(stub: Stub) -> None:
    request = pair_request(3)
    request.outputs.add(name="second")
    answer = await stub.ModelInfer(request)
    assert [each.name for each in answer.outputs] == ["second"]
    assert answer.raw_output_contents[0] == bytes(range(15))


async def test_an_emulated_answer_is_labelled(running: Running, stub: Stub) -> None:
    running.backend.emulated = True
    assert (await stub.ModelInfer(echo_request())).parameters["emulated"].bool_param


async def test_statistics_count_what_was_served(running: Running, stub: Stub) -> None:
    for _ in range(3):
        await stub.ModelInfer(echo_request(6))
    running.backend.failure = "broken"
    await refusal(stub.ModelInfer(echo_request(1)))
    told = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="echo"))
    (echo,) = told.model_stats
    assert (echo.name, echo.version) == ("echo", "1")
    assert echo.inference_count == 18
    assert echo.execution_count == 6
    assert {each.batch_size: each.compute_infer.count for each in echo.batch_stats} == {2: 3, 4: 3}
    stats = echo.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 1)
    assert (stats.queue.count, stats.compute_infer.count) == (3, 3)
    assert stats.compute_infer.ns == 3 * 2_000_000
    assert echo.last_inference > 1_600_000_000_000
    everything = await stub.ModelStatistics(pb.ModelStatisticsRequest())
    assert [each.name for each in everything.model_stats] == ["echo", "pair"]


# How requests end without an answer


async def test_a_failed_batch_is_internal(running: Running, stub: Stub) -> None:
    running.backend.failure = "device on fire"
    error = await refusal(stub.ModelInfer(echo_request()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "the computation failed: device on fire"


async def test_a_timeout_that_cannot_be_met_is_a_passed_deadline(stub: Stub) -> None:
    request = echo_request()
    request.parameters["timeout"].int64_param = 1
    error = await refusal(stub.ModelInfer(request))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_more_than_may_wait_is_shed() -> None:
    async with a_running_frontend(queue_samples=8) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        error = await refusal(stub.ModelInfer(echo_request(9)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.ModelInfer(echo_request(8))


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async with a_running_frontend(hold=True) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        open_requests = running.backend.wiring.ingress
        call = stub.ModelInfer(echo_request())
        await eventually(lambda: len(open_requests) == 1)
        call.cancel()
        await eventually(lambda: len(open_requests) == 0)
        assert running.frontend.pending == 0


async def test_a_passed_grpc_deadline_leaves_nothing_behind() -> None:
    async with a_running_frontend(hold=True) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        error = await refusal(stub.ModelInfer(echo_request(), timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: len(running.backend.wiring.ingress) == 0)


async def test_too_large_a_message_is_refused_and_the_server_serves_on() -> None:
    async with a_running_frontend(max_message_mib=1) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        error = await refusal(stub.ModelInfer(echo_request(1 << 17)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await stub.ModelInfer(echo_request())


# Streams


async def test_a_stream_answers_in_order_and_survives_refusals(stub: Stub) -> None:
    requests = [echo_request(1 + number % 5, id=str(number)) for number in range(40)]
    requests[7].model_name = "none"
    requests[9].inputs[0].datatype = "INT8"
    answers = [each async for each in stub.ModelStreamInfer(iter(requests))]
    assert [each.infer_response.id for each in answers] == [str(number) for number in range(40)]
    wrong = {each.infer_response.id: each.error_message for each in answers if each.error_message}
    assert set(wrong) == {"7", "9"}
    assert wrong["7"].startswith("NOT_FOUND: unknown model 'none'")
    assert wrong["9"].startswith("INVALID_ARGUMENT: ModelInferRequest: inputs[0].datatype")
    for request, answer in zip(requests, answers, strict=True):
        if not answer.error_message:
            assert answer.infer_response.raw_output_contents == request.raw_input_contents


async def test_a_stream_has_a_bounded_number_under_way() -> None:
    async with a_running_frontend(hold=True, stream_requests=4) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        call = stub.ModelStreamInfer(iter([echo_request() for _ in range(50)]))
        reading = asyncio.ensure_future(call.read())
        await eventually(lambda: running.frontend.pending >= 4)
        await asyncio.sleep(0.05)
        assert running.frontend.pending <= 5
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await eventually(lambda: running.frontend.pending == 0)


async def test_a_refusal_after_dispatch_is_an_answer_on_a_stream(
    running: Running, stub: Stub
) -> None:
    running.backend.failure = "it broke"
    requests = [echo_request(id="a"), echo_request(id="b")]
    answers = [each async for each in stub.ModelStreamInfer(iter(requests))]
    assert [each.infer_response.id for each in answers] == ["a", "b"]
    assert all(each.error_message.startswith("INTERNAL: ") for each in answers)


async def test_what_is_no_message_ends_a_stream_after_the_answers_before_it(
    running: Running,
) -> None:
    messages = [echo_request(id=each).SerializeToString() for each in "ab"]
    call: Stub = running.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answering = call(iter([*messages, b"\xff" * 9, messages[0]]))
    for _ in messages:
        assert isinstance(await answering.read(), bytes)
    with pytest.raises(grpc.aio.AioRpcError, match="expected a protobuf message"):
        await answering.read()
    assert await answering.code() is INVALID
    await eventually(lambda: running.frontend.pending == 0)


async def test_a_stream_whose_client_goes_away_leaves_nothing_behind() -> None:
    async with a_running_frontend(hold=True) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        call = stub.ModelStreamInfer(iter([echo_request() for _ in range(30)]))
        reading = asyncio.ensure_future(call.read())
        await eventually(lambda: running.frontend.pending == 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await eventually(lambda: running.frontend.pending == 0)
        assert len(running.backend.wiring.ingress) == 0


async def test_an_empty_stream_just_ends(stub: Stub) -> None:
    nothing: Iterator[pb.ModelInferRequest] = iter(())
    assert [each async for each in stub.ModelStreamInfer(nothing)] == []


# Malformed requests, many of them


def malformed(dice: random.Random) -> tuple[pb.ModelInferRequest, grpc.StatusCode]:
    """Break one or several things of a valid request."""
    build = dice.choice([echo_request, typed_echo_request, pair_request, raw_pair_request])
    request = build(dice.randint(1, 6))
    code = NOT_FOUND if dice.random() < 0.15 else INVALID
    if code is NOT_FOUND:
        _hide_model(request, dice)
    else:
        dice.choice(BREAKS)(request, dice)
    return request, code


def _hide_model(request: pb.ModelInferRequest, dice: random.Random) -> None:
    if dice.random() < 0.5:
        request.model_name = dice.choice(["", "Echo", "echo ", "../echo", "x" * 5000, "\x00", "é"])
    else:
        request.model_version = dice.choice(["0", "-1", "latest", "1.0", "9" * 99])


def _wrong_name(request: pb.ModelInferRequest, dice: random.Random) -> None:
    request.inputs[-1].name = dice.choice(["", "X", "x\x00", "ids ", "🦊", "n" * 70_000])


def _wrong_datatype(request: pb.ModelInferRequest, dice: random.Random) -> None:
    names = ["", "fp32", "FP16", "BF16", "BYTES", "INT32", "FLOAT", "é" * 3000]
    request.inputs[-1].datatype = dice.choice(names)


def _wrong_shape(request: pb.ModelInferRequest, dice: random.Random) -> None:
    shape = request.inputs[-1].shape
    axis = dice.randrange(len(shape))
    shape[axis] = dice.choice([0, -1, -(2**63), 2**63 - 1, 2**31, shape[axis] + 1])


def _wrong_rank(request: pb.ModelInferRequest, dice: random.Random) -> None:
    shape = request.inputs[-1].shape
    if dice.random() < 0.5:
        shape.extend([1] * dice.choice([1, 3, 2000]))
    else:
        del shape[dice.randrange(len(shape)) :]


def _wrong_amount(request: pb.ModelInferRequest, dice: random.Random) -> None:
    if request.raw_input_contents:
        data = request.raw_input_contents[-1]
        request.raw_input_contents[-1] = dice.choice([b"", data[:-1], data + b"\x00", data * 2])
    else:
        contents = request.inputs[-1].contents
        (field, _), *_ = contents.ListFields()
        values = getattr(contents, field.name)
        if dice.random() < 0.5:
            values.append(values[0])
        else:
            del values[dice.randrange(len(values)) :]


def _no_contents(request: pb.ModelInferRequest, dice: random.Random) -> None:
    request.ClearField("raw_input_contents")
    request.inputs[dice.randrange(len(request.inputs))].ClearField("contents")


def _both_contents(request: pb.ModelInferRequest, dice: random.Random) -> None:
    request.inputs[-1].contents.fp64_contents.append(dice.random())
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([b""] * len(request.inputs))


def _twice(request: pb.ModelInferRequest, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 100])):
        request.inputs.append(request.inputs[0])


def _missing(request: pb.ModelInferRequest, dice: random.Random) -> None:
    del request.inputs[dice.randrange(len(request.inputs)) :]


def _wrong_output(request: pb.ModelInferRequest, dice: random.Random) -> None:
    names = ["", "y" * 9999, "x", "yy"]
    for name in dice.choices(names, k=dice.randint(1, 3)):
        request.outputs.add(name=name)


def _wrong_parameter(request: pb.ModelInferRequest, dice: random.Random) -> None:
    parameter = request.parameters[dice.choice(["timeout", "priority"])]
    field, value = dice.choice(
        [
            ("int64_param", -1),
            ("int64_param", -(2**63)),
            ("uint64_param", 2**64 - 1),
            ("string_param", "soon"),
            ("string_param", ""),
            ("double_param", float("nan")),
            ("bool_param", True),
        ]
    )
    setattr(parameter, field, value)


BREAKS = [
    _wrong_name,
    _wrong_datatype,
    _wrong_shape,
    _wrong_rank,
    _wrong_amount,
    _no_contents,
    _both_contents,
    _twice,
    _missing,
    _wrong_output,
    _wrong_parameter,
]


async def test_four_hundred_malformed_requests_are_told_apart_and_serving_goes_on(
    running: Running, stub: Stub
) -> None:
    dice = random.Random(2)
    for number in range(400):
        request, code = malformed(dice)
        error = await refusal(stub.ModelInfer(request))
        details = error.details() or ""
        assert error.code() is code, (number, details, request)
        assert 20 < len(details) <= 1000
        words = "expected" if code is INVALID else "unknown"
        assert words in details
    assert not running.backend.batches
    answer = await stub.ModelInfer(echo_request(2))
    found = np.frombuffer(answer.raw_output_contents[0], dtype="<f4")
    assert found.tolist() == list(range(8))


async def test_bytes_that_are_no_message_are_refused_and_serving_goes_on(
    running: Running, stub: Stub
) -> None:
    raw: Stub = running.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for data in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x05abc"):
        error = await refusal(raw(data))
        assert error.code() is INVALID
        assert "expected a protobuf message" in (error.details() or "")
    assert await stub.ModelInfer(echo_request())


async def test_an_slo_shorter_than_the_clients_deadline_still_binds() -> None:
    async with a_running_frontend(a_catalogue(slo_us=1)) as running:
        stub: Stub = GRPCInferenceServiceStub(running.channel)
        error = await refusal(stub.ModelInfer(echo_request(), timeout=5))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

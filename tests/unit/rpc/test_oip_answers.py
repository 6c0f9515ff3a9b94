"""Encoded answers: protobuf reads from them what was put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.tensors import Tensor
from penstock.rpc.oip import Query, read_infer
from penstock.rpc.oip_answers import AnswerWriter, stream_error
from protos import inference_pb2 as pb
from tests.support.frontends import echo_signature, pair_signature
from tests.support.messages import echo_request, raw_pair_request

ECHO, PAIR = echo_signature(), pair_signature()
OUTPUT = Tensor("y", "FP32", (1, 4), memoryview(bytes(range(16))))


def written(query: Query, *outputs: Tensor, emulated: bool = False) -> pb.ModelInferResponse:
    encoded = AnswerWriter().write(query, outputs, emulated=emulated)
    return pb.ModelInferResponse.FromString(encoded)


def pair_outputs(samples: int) -> tuple[Tensor, Tensor]:
    second = Tensor("second", "UINT8", (samples, 5), bytes(range(5)) * samples)
    return Tensor("first", "INT64", (samples, 2, 3), bytes(48 * samples)), second


def test_the_answer_carries_raw_outputs_and_the_clients_id() -> None:
    answer = written(read_infer(echo_request(1, id="mine"), ECHO), OUTPUT)
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "mine")
    assert [(each.name, each.datatype, list(each.shape)) for each in answer.outputs] == [
        ("y", "FP32", [1, 4])
    ]
    assert list(answer.raw_output_contents) == [bytes(range(16))]
    assert not answer.parameters


def test_an_emulated_answer_says_so() -> None:
    query = read_infer(echo_request(1), ECHO)
    assert written(query, OUTPUT, emulated=True).parameters["emulated"].bool_param


def test_outputs_come_in_the_order_asked_whatever_the_stages() -> None:
    request = raw_pair_request(2)
    for name in ("second", "first"):
        request.outputs.add(name=name)
    answer = written(read_infer(request, PAIR), *pair_outputs(2))
    assert [each.name for each in answer.outputs] == ["second", "first"]
    assert [len(each) for each in answer.raw_output_contents] == [10, 96]


def test_an_output_in_shared_memory_is_named_and_not_sent() -> None:
    request = raw_pair_request(2)
    parameters = request.outputs.add(name="first").parameters
    parameters["shared_memory_region"].string_param = "out"
    parameters["shared_memory_byte_size"].int64_param = 200
    parameters["shared_memory_offset"].int64_param = 8
    request.outputs.add(name="second")
    answer = written(read_infer(request, PAIR, regions=NoRegions()), *pair_outputs(2))
    told = dict(answer.outputs[0].parameters)
    assert told["shared_memory_region"].string_param == "out"
    assert told["shared_memory_byte_size"].int64_param == 96
    assert told["shared_memory_offset"].int64_param == 8
    assert [len(each) for each in answer.raw_output_contents] == [0, 10]


class NoRegions:
    def read(self, place: object) -> bytes:
        raise AssertionError("no input is there")

    def write(self, place: object, data: object) -> None:
        raise AssertionError("the writer of answers does not write there")


@given(st.text(max_size=300), st.integers(1, 300), st.booleans(), st.booleans())
def test_a_remembered_head_answers_like_a_fresh_one(
    request_id: str, samples: int, emulated: bool, stream: bool
) -> None:
    request_id = request_id.encode("utf-8", "ignore").decode()
    query = read_infer(echo_request(samples, id=request_id), ECHO)
    outputs = [Tensor("y", "FP32", (samples, 4), bytes(16 * samples))]
    writer = AnswerWriter()
    write = writer.write_on_stream if stream else writer.write
    first, again = (write(query, outputs, emulated=emulated) for _ in range(2))
    assert first == again
    answer = pb.ModelInferResponse()
    if stream:
        answer = pb.ModelStreamInferResponse.FromString(again).infer_response
    else:
        answer.ParseFromString(again)
    expected = pb.ModelInferResponse(model_name="echo", model_version="1", id=request_id)
    if emulated:
        expected.parameters["emulated"].bool_param = True
    expected.outputs.add(name="y", datatype="FP32", shape=[samples, 4])
    expected.raw_output_contents.append(bytes(16 * samples))
    assert answer == expected


@pytest.mark.parametrize("count", [1, 3_000])
def test_heads_are_remembered_within_bounds(count: int) -> None:
    writer = AnswerWriter()
    for samples in range(1, count + 1):
        query = read_infer(echo_request(1, id=str(samples)), ECHO)
        writer.write(query, [Tensor("y", "FP32", (samples, 4), b"")])
    assert len(writer._heads) <= 1_024


def test_a_refusal_on_a_stream_names_its_request() -> None:
    refusal = pb.ModelStreamInferResponse.FromString(stream_error("echo", "7", "no"))
    assert (refusal.error_message, refusal.infer_response.id) == ("no", "7")
    assert refusal.infer_response.model_name == "echo"

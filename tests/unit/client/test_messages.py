"""Requests as they are written, answers as they are read, from any server of the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from client.arrays import Array
from client.messages import infer_message, read_answer, read_facts
from penstock.domain.errors import InvalidRequest
from penstock.domain.tensors import Tensor
from protos import inference_pb2 as pb


def test_requests_carry_raw_contents_in_order() -> None:
    tensors: dict[str, Array] = {"x": np.ones((1, 2), np.float32), "y": np.zeros(1, np.int64)}
    message = infer_message("m", tensors, version="3", request_id="r", outputs=("z",))
    assert [(each.name, each.datatype, list(each.shape)) for each in message.inputs] == [
        ("x", "FP32", [1, 2]),
        ("y", "INT64", [1]),
    ]
    assert [len(raw) for raw in message.raw_input_contents] == [8, 8]
    assert (message.model_version, message.id, message.outputs[0].name) == ("3", "r", "z")
    assert "timeout" not in message.parameters


def test_tensors_that_numpy_lacks_travel_too() -> None:
    message = infer_message("m", [Tensor("x", "BF16", (1, 1), memoryview(b"\x80\x3f"))])
    assert message.inputs[0].datatype == "BF16"
    assert message.raw_input_contents[0] == b"\x80\x3f"


def test_raw_answers() -> None:
    reply = pb.ModelInferResponse(model_name="m", model_version="1", id="r")
    reply.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    reply.raw_output_contents.append(np.array([1, 2], "<f4").tobytes())
    reply.parameters["emulated"].bool_param = True
    answer = read_answer(reply)
    assert (answer.model, answer.version, answer.id, answer.emulated) == ("m", "1", "r", True)
    assert answer.array("y").tolist() == [[1.0, 2.0]]
    with pytest.raises(KeyError, match="z"):
        answer.array("z")


def test_typed_answers() -> None:
    reply = pb.ModelInferResponse()
    output = reply.outputs.add(name="y", datatype="INT8", shape=[3])
    output.contents.int_contents.extend([1, -2, 3])
    assert read_answer(reply).array().tolist() == [1, -2, 3]


def test_answers_that_lack_contents_are_refused() -> None:
    reply = pb.ModelInferResponse(raw_output_contents=[b""])
    reply.outputs.add(name="y", datatype="FP32", shape=[1])
    reply.outputs.add(name="z", datatype="FP32", shape=[1])
    with pytest.raises(InvalidRequest, match="found 1 raw for 2 outputs"):
        read_answer(reply)


def test_facts_of_a_model_from_metadata_and_configuration() -> None:
    metadata = pb.ModelMetadataResponse(name="m", versions=["1"], platform="p")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    config = pb.ModelConfig(max_batch_size=8)
    config.dynamic_batching.default_queue_policy.default_timeout_microseconds = 90_000
    config.parameters["emulated"].string_value = "true"
    facts = read_facts(metadata, config)
    assert (facts.slo_us, facts.max_batch, facts.emulated) == (90_000, 8, True)
    assert facts.inputs[0].shape == (-1, 2)
    bare = read_facts(metadata)
    assert (bare.slo_us, bare.max_batch, bare.emulated) == (None, 0, False)

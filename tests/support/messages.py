"""Valid protocol messages for the loop-back models, to be broken one field at a time."""

from __future__ import annotations

import numpy as np

from protos import inference_pb2 as pb


def echo_request(samples: int = 2, *, name: str = "echo", id: str = "") -> pb.ModelInferRequest:
    """Return a raw request for the model `echo`; sample i holds 4i, 4i+1, 4i+2, 4i+3."""
    rows = np.arange(4 * samples, dtype="<f4")
    request = pb.ModelInferRequest(model_name=name, id=id, raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[samples, 4])
    return request


def typed_echo_request(samples: int = 2) -> pb.ModelInferRequest:
    """Return the same request with typed contents."""
    request = echo_request(samples)
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend(range(4 * samples))
    return request


def pair_request(samples: int = 2) -> pb.ModelInferRequest:
    """Return a typed request for the model `pair`."""
    request = pb.ModelInferRequest(model_name="pair", model_version="3")
    ids = request.inputs.add(name="ids", datatype="INT64", shape=[samples, 2, 3])
    ids.contents.int64_contents.extend(range(6 * samples))
    mask = request.inputs.add(name="mask", datatype="UINT8", shape=[samples, 5])
    mask.contents.uint_contents.extend(each % 256 for each in range(5 * samples))
    return request


def raw_pair_request(samples: int = 2) -> pb.ModelInferRequest:
    """Return the same request with raw contents."""
    request = pair_request(samples)
    for each in request.inputs:
        each.ClearField("contents")
    request.raw_input_contents.append(np.arange(6 * samples, dtype="<i8").tobytes())
    request.raw_input_contents.append(bytes(each % 256 for each in range(5 * samples)))
    return request

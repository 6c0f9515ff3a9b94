"""Requests and answers of the Open Inference Protocol as this client writes and reads them.

Writes raw contents only; reads raw and typed ones, so that other servers can be asked too. Knows
nothing of connections.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from client.arrays import Array, array_of, tensor_of
from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidRequest
from penstock.domain.tensors import Tensor
from penstock.domain.units import Micros
from penstock.rpc.oip_contents import raw_bytes
from protos import inference_pb2 as pb

# An array is named by its key; a tensor names itself and may hold datatypes numpy lacks.
Tensors: TypeAlias = Mapping[str, Array] | Iterable[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered.

    Attributes:
        id: the request's own name, echoed.
        emulated: the server says that an emulated device set the pace.
    """

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    emulated: bool = False

    def array(self, name: str = "") -> Array:
        """Return one output as a read-only array; without a name, the first.

        Raises:
            KeyError: the answer has no such output.
            InvalidRequest: numpy has no type for it.
        """
        for tensor in self.outputs:
            if name in ("", tensor.name):
                return array_of(tensor)
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a server says of a model.

    Attributes:
        inputs, outputs: with -1 where any size will do.
        slo_us: how long a request may wait by default; None if the server does not say.
        max_batch: rows that run at once; 0 if the server does not say.
        emulated: the server says that emulated devices set the pace.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    slo_us: Micros | None = None
    max_batch: int = 0
    emulated: bool = False


def infer_message(
    model: str,
    tensors: Tensors,
    *,
    version: str = "",
    request_id: str = "",
    outputs: Iterable[str] = (),
    timeout_us: Micros | None = None,
) -> pb.ModelInferRequest:
    """Return the request for one inference.

    Args:
        model: name of the model.
        tensors: its inputs.
        version: empty for the one that is served.
        request_id: echoed in the answer.
        outputs: names of those wanted; none for all.
        timeout_us: sent as the request's ``timeout`` parameter, for the server to hold.

    Raises:
        InvalidRequest: the protocol has no datatype for an array.
    """
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for tensor in _as_tensors(tensors):
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.data))
    for name in outputs:
        message.outputs.add(name=name)
    if timeout_us is not None:
        message.parameters["timeout"].int64_param = timeout_us
    return message


def read_answer(message: pb.ModelInferResponse) -> Answer:
    """Return the answer in a response.

    Raises:
        InvalidRequest: its contents contradict its datatypes and shapes.
    """
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        found = f"{len(raw)} raw for {len(message.outputs)} outputs"
        raise InvalidRequest("ModelInferResponse", "outputs", "contents for each", found)
    return Answer(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        outputs=tuple(
            Tensor(
                output.name,
                output.datatype,
                tuple(output.shape),
                raw[place] if raw else _typed(output),
            )
            for place, output in enumerate(message.outputs)
        ),
        emulated="emulated" in message.parameters and message.parameters["emulated"].bool_param,
    )


def decode_answer(encoded: bytes) -> Answer:
    """Return the answer in an encoded response.

    Raises:
        InvalidRequest: its contents contradict its datatypes and shapes.
    """
    return read_answer(pb.ModelInferResponse.FromString(encoded))


def read_facts(
    metadata: pb.ModelMetadataResponse, config: pb.ModelConfig | None = None
) -> ModelFacts:
    """Return what metadata and, where the server has it, configuration say of a model."""
    config = config or pb.ModelConfig()
    policy = config.dynamic_batching.default_queue_policy
    return ModelFacts(
        name=metadata.name,
        versions=tuple(metadata.versions),
        platform=metadata.platform,
        inputs=tuple(_spec(each) for each in metadata.inputs),
        outputs=tuple(_spec(each) for each in metadata.outputs),
        slo_us=policy.default_timeout_microseconds or None,
        max_batch=config.max_batch_size,
        emulated=config.parameters["emulated"].string_value == "true",
    )


def _as_tensors(tensors: Tensors) -> Iterable[Tensor]:
    if isinstance(tensors, Mapping):
        return (tensor_of(name, array) for name, array in tensors.items())
    return tensors


def _typed(output: pb.ModelInferResponse.InferOutputTensor) -> bytes:
    elements = math.prod(output.shape)
    source, place = "ModelInferResponse", f"outputs[{output.name!r}].contents"
    return raw_bytes(output.contents, output.datatype, elements, source, place)


def _spec(metadata: pb.ModelMetadataResponse.TensorMetadata) -> TensorSpec:
    return TensorSpec(name=metadata.name, datatype=metadata.datatype, shape=tuple(metadata.shape))

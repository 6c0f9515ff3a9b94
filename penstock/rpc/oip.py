"""Open Inference Protocol requests and answers ⇄ domain values.

With its two neighbours (`oip_contents`, `oip_descriptions`) the only module that knows both. A
request is checked completely here: past this point its tensors fit the model. Knows nothing of
queues, deadlines of the transport, or how an answer is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.errors import InvalidRequest, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.tensors import DATATYPE_BYTES, Tensor
from penstock.domain.units import Micros
from penstock.rpc.oip_contents import filled_lists, raw_bytes
from penstock.rpc.status import clipped
from protos import inference_pb2 as pb

_SOURCE = "ModelInferRequest"
_LARGEST_PRIORITY = 2**31 - 1
_LARGEST_TIMEOUT_US = 2**53
_LARGEST_AXIS = 2**31 - 1
_SHOWN_CHARACTERS = 80
_SHARED_MEMORY = "shared_memory_region"
_CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """What a client has to know of a model: its tensors, batch axis first."""

    name: ModelName
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One valid inference request.

    Attributes:
        id: the client's own name for it; echoed, never interpreted.
        inputs: one tensor per input of the model, in the model's order.
        samples: rows of the batch axis, at least 1.
        outputs: names of the outputs asked for, in the order asked.
        timeout_us: what the client allows; None if it did not say.
        priority: 1 is served first; 0 is the default.
    """

    id: str
    signature: ModelSignature
    inputs: tuple[Tensor, ...]
    samples: int
    outputs: tuple[str, ...]
    timeout_us: Micros | None
    priority: int


def check_version(signature: ModelSignature, version: str) -> None:
    """Check that a version asked for is the one served; empty stands for any.

    Raises:
        UnknownName: another version is asked for.
    """
    if version and version != signature.version:
        raise UnknownName(
            f"version of model {signature.name!r}", _cut(version), [signature.version]
        )


def unknown_model(name: str, known: Sequence[str]) -> UnknownName:
    """Return the error for a model that is not served."""
    return UnknownName("model", _cut(name), known)


def read_infer(message: pb.ModelInferRequest, signature: ModelSignature) -> Query:
    """Check a request against the model it names and convert it.

    Raises:
        InvalidRequest: a tensor or parameter does not fit; says which, what was expected and
            what was found.
        UnknownName: the version is not served.
    """
    check_version(signature, message.model_version)
    places = _places(message, signature)
    raw = _raw_contents(message)
    inputs = tuple(
        _read_tensor(message.inputs[places[spec.name]], places[spec.name], spec, raw)
        for spec in signature.inputs
    )
    _refuse_sequences(message.parameters)
    return Query(
        id=message.id,
        signature=signature,
        inputs=inputs,
        samples=_samples(inputs, places),
        outputs=_requested_outputs(message, signature),
        timeout_us=_natural(message.parameters, "timeout", _LARGEST_TIMEOUT_US) or None,
        priority=_natural(message.parameters, "priority", _LARGEST_PRIORITY),
    )


def write_infer(
    query: Query, outputs: Sequence[Tensor], *, emulated: bool = False
) -> pb.ModelInferResponse:
    """Return the answer to a query.

    Args:
        outputs: at least those the query asked for.
        emulated: mark the answer as timed by an emulated device.
    """
    answer = pb.ModelInferResponse(
        model_name=query.signature.name, model_version=query.signature.version, id=query.id
    )
    if emulated:
        answer.parameters["emulated"].bool_param = True
    by_name = {tensor.name: tensor for tensor in outputs}
    for name in query.outputs:
        tensor = by_name[name]
        answer.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        answer.raw_output_contents.append(bytes(tensor.data))
    return answer


def stream_answer(answer: pb.ModelInferResponse) -> pb.ModelStreamInferResponse:
    """Wrap an answer for a stream."""
    return pb.ModelStreamInferResponse(infer_response=answer)


def stream_error(message: pb.ModelInferRequest, details: str) -> pb.ModelStreamInferResponse:
    """Return a refusal on a stream; model and id tell the client which request it was."""
    named = pb.ModelInferResponse(model_name=_cut(message.model_name), id=message.id)
    return pb.ModelStreamInferResponse(error_message=details, infer_response=named)


def _places(message: pb.ModelInferRequest, signature: ModelSignature) -> dict[str, int]:
    """Return the index of each input by name: all there, none twice, none unknown."""
    known = [spec.name for spec in signature.inputs]
    places: dict[str, int] = {}
    for index, given in enumerate(message.inputs):
        place = f"inputs[{index}].name"
        if given.name not in known:
            raise InvalidRequest(_SOURCE, place, f"one of {_listed(known)}", _quoted(given.name))
        if given.name in places:
            expected = f"each input once ({given.name} is inputs[{places[given.name]}])"
            raise InvalidRequest(_SOURCE, place, expected, f"{_quoted(given.name)} again")
        places[given.name] = index
    missing = [name for name in known if name not in places]
    if missing:
        found = _listed(places) if places else "no inputs"
        raise InvalidRequest(_SOURCE, "inputs", f"an input named {_quoted(missing[0])}", found)
    return places


def _raw_contents(message: pb.ModelInferRequest) -> Sequence[bytes] | None:
    raw = message.raw_input_contents
    if not raw:
        return None
    if len(raw) != len(message.inputs):
        expected = f"{len(message.inputs)} entries, one per input"
        raise InvalidRequest(_SOURCE, "raw_input_contents", expected, str(len(raw)))
    for index, given in enumerate(message.inputs):
        filled = filled_lists(given.contents) if given.HasField("contents") else []
        if filled:
            expected = "no typed contents beside raw_input_contents"
            place = f"inputs[{index}].contents.{filled[0]}"
            raise InvalidRequest(_SOURCE, place, expected, "elements in it")
    return raw


def _read_tensor(
    given: pb.ModelInferRequest.InferInputTensor,
    index: int,
    spec: TensorSpec,
    raw: Sequence[bytes] | None,
) -> Tensor:
    place = f"inputs[{index}]"
    if _SHARED_MEMORY in given.parameters:
        where = f"{place}.parameters[{_SHARED_MEMORY}]"
        raise InvalidRequest(_SOURCE, where, "the tensor in the request", "shared memory")
    if given.datatype != spec.datatype:
        expected = f"{spec.datatype} for {spec.name}"
        raise InvalidRequest(_SOURCE, f"{place}.datatype", expected, _quoted(given.datatype))
    shape = _checked_shape(given.shape, spec, f"{place}.shape")
    if raw is None:
        elements = math.prod(shape)
        data = raw_bytes(given.contents, spec.datatype, elements, _SOURCE, f"{place}.contents")
    else:
        data = _checked_raw(raw[index], spec.datatype, shape, f"raw_input_contents[{index}]")
    return Tensor(spec.name, spec.datatype, shape, data)


def _checked_shape(found: Sequence[int], spec: TensorSpec, place: str) -> tuple[int, ...]:
    fits = len(found) == len(spec.shape) and all(
        0 < size <= _LARGEST_AXIS and want in (DYNAMIC, size)
        for size, want in zip(found, spec.shape, strict=True)
    )
    if not fits:
        expected = f"{list(spec.shape)} for {spec.name} (-1: any size from 1)"
        raise InvalidRequest(_SOURCE, place, expected, _shown_shape(found))
    return tuple(found)


def _checked_raw(data: bytes, datatype: str, shape: tuple[int, ...], place: str) -> bytes:
    expected_bytes = DATATYPE_BYTES[datatype] * math.prod(shape)
    if len(data) != expected_bytes:
        expected = f"{expected_bytes} bytes for {datatype} {list(shape)}"
        raise InvalidRequest(_SOURCE, place, expected, f"{len(data)} bytes")
    if datatype == "BOOL" and data.translate(None, b"\x00\x01"):
        raise InvalidRequest(_SOURCE, place, "bytes 0 and 1 for BOOL", "others")
    return data


def _samples(inputs: Sequence[Tensor], places: Mapping[str, int]) -> int:
    first = inputs[0]
    for tensor in inputs[1:]:
        if tensor.shape[0] != first.shape[0]:
            place = f"inputs[{places[tensor.name]}].shape[0]"
            expected = f"batch {first.shape[0]} as in {first.name}"
            raise InvalidRequest(_SOURCE, place, expected, str(tensor.shape[0]))
    return first.shape[0]


def _requested_outputs(message: pb.ModelInferRequest, signature: ModelSignature) -> tuple[str, ...]:
    known = tuple(spec.name for spec in signature.outputs)
    if not message.outputs:
        return known
    asked: dict[str, None] = {}
    for index, output in enumerate(message.outputs):
        place = f"outputs[{index}].name"
        if output.name not in known:
            raise InvalidRequest(_SOURCE, place, f"one of {_listed(known)}", _quoted(output.name))
        if output.name in asked:
            found = f"{_quoted(output.name)} again"
            raise InvalidRequest(_SOURCE, place, "each output once", found)
        _refuse_extensions(output.parameters, f"outputs[{index}].parameters")
        asked[output.name] = None
    return tuple(asked)


def _refuse_extensions(parameters: Mapping[str, pb.InferParameter], place: str) -> None:
    for key, expected in (
        (_SHARED_MEMORY, "an output that is sent in the answer"),
        (_CLASSIFICATION, "no classification (take the largest of the output yourself)"),
    ):
        if key in parameters:
            raise InvalidRequest(_SOURCE, f"{place}[{key}]", expected, _shown(parameters[key]))


def _refuse_sequences(parameters: Mapping[str, pb.InferParameter]) -> None:
    if "sequence_id" in parameters:
        found = _shown(parameters["sequence_id"])
        expected = "none (models are stateless)"
        raise InvalidRequest(_SOURCE, "parameters[sequence_id]", expected, found)


def _natural(parameters: Mapping[str, pb.InferParameter], key: str, largest: int) -> int:
    """Return an integer parameter, or 0 if it is not there; digits in a string count too."""
    if key not in parameters:
        return 0
    parameter = parameters[key]
    kind = parameter.WhichOneof("parameter_choice")
    value = -1
    if kind in ("int64_param", "uint64_param"):
        value = getattr(parameter, kind)
    elif kind == "string_param" and _is_number(parameter.string_param):
        value = int(parameter.string_param)
    if not 0 <= value <= largest:
        expected = f"an integer in 0..{largest}"
        raise InvalidRequest(_SOURCE, f"parameters[{key}]", expected, _shown(parameter))
    return value


def _is_number(text: str) -> bool:
    return len(text) <= len(str(_LARGEST_TIMEOUT_US)) and text.isascii() and text.isdigit()


def _shown(parameter: pb.InferParameter) -> str:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        return "an empty parameter"
    return f"{kind} {_quoted(getattr(parameter, kind))}"


def _shown_shape(shape: Sequence[int]) -> str:
    axes = list(shape[:8])
    return str(axes) if len(shape) <= len(axes) else f"{len(shape)} axes: {str(axes)[:-1]}, …]"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return clipped(", ".join(names), 4 * _SHOWN_CHARACTERS)


def _quoted(value: object) -> str:
    return repr(_cut(value) if isinstance(value, str) else value)


def _cut(text: str) -> str:
    return clipped(text, _SHOWN_CHARACTERS)

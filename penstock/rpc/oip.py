"""Open Inference Protocol requests → domain values.

With its neighbours (`oip_wire`, `oip_answers`, `oip_contents`, `oip_descriptions`) the only module
that knows both. A request is checked completely here: past this point its tensors fit the model.
Knows nothing of queues, deadlines of the transport, or how an answer is made.

A request is read in two steps. Its *head* is all but its id and its tensors' bytes: what many
requests have in common. The bytes then fill a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.errors import InvalidRequest, UnknownName
from penstock.domain.ids import ModelName
from penstock.domain.tensors import DATATYPE_BYTES, Buffer, Tensor
from penstock.domain.units import Bytes, Micros
from penstock.rpc.oip_contents import filled_lists, raw_bytes
from penstock.rpc.oip_parameters import (
    LARGEST_TIMEOUT_US,
    REGION,
    REGION_BYTES,
    SOURCE,
    Place,
    cut,
    listed,
    natural,
    quoted,
    read_place,
    shown,
)
from protos import inference_pb2 as pb

_LARGEST_PRIORITY = 2**31 - 1
_LARGEST_AXIS = 2**31 - 1
_CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """What a client has to know of a model: its tensors, batch axis first."""

    name: ModelName
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Regions(Protocol):
    """The regions that clients registered."""

    def read(self, place: Place) -> Buffer:
        """Return a copy of what lies there.

        Raises:
            InvalidInput: nothing does.
            UnknownName: no such region is registered.
        """
        ...

    def write(self, place: Place, data: Buffer) -> None:
        """Copy data there; it may be shorter than the place.

        Raises:
            InvalidInput: there is no such place, or it is too small.
            UnknownName: no such region is registered.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An input as the head announces it.

    Attributes:
        index: of the input in the request, for errors.
        raw: of its bytes among those that the request carries; -1 if they lie in shared memory.
        place: where they lie then.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: Bytes
    index: int
    raw: int
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """All of a request but its id and its tensors' bytes; checked.

    Attributes:
        inputs: one per input of the model, in the model's order.
        carried: inputs whose bytes the request carries.
    """

    signature: ModelSignature
    inputs: tuple[Wanted, ...]
    carried: int
    samples: int
    outputs: tuple[str, ...]
    places: Mapping[str, Place]
    timeout_us: Micros | None
    priority: int


@dataclass(frozen=True, slots=True)
class Query:
    """One valid inference request.

    Attributes:
        id: the client's own name for it; echoed, never interpreted.
        head: what it says beside that and its tensors.
        inputs: one tensor per input of the model, in the model's order.
    """

    id: str
    head: Head
    inputs: tuple[Tensor, ...]

    @property
    def signature(self) -> ModelSignature:
        """The model's."""
        return self.head.signature

    @property
    def samples(self) -> int:
        """Rows of the batch axis, at least 1."""
        return self.head.samples

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs asked for, in the order asked."""
        return self.head.outputs

    @property
    def timeout_us(self) -> Micros | None:
        """What the client allows; None if it did not say."""
        return self.head.timeout_us

    @property
    def priority(self) -> int:
        """1 is served first; 0 is the default."""
        return self.head.priority

    @property
    def places(self) -> Mapping[str, Place]:
        """Where outputs go that are not sent in the answer, by name."""
        return self.head.places


def check_version(signature: ModelSignature, version: str) -> None:
    """Check that a version asked for is the one served; empty stands for any.

    Raises:
        UnknownName: another version is asked for.
    """
    if version and version != signature.version:
        raise UnknownName(f"version of model {signature.name!r}", cut(version), [signature.version])


def unknown_model(name: str, known: Sequence[str]) -> UnknownName:
    """Return the error for a model that is not served."""
    return UnknownName("model", cut(name), known)


def read_infer(
    message: pb.ModelInferRequest, signature: ModelSignature, regions: Regions | None = None
) -> Query:
    """Check a request against the model it names and convert it.

    Args:
        message: the request.
        signature: of the model.
        regions: shared memory that it may name; None: it must carry all its tensors.

    Raises:
        InvalidRequest: a tensor or parameter does not fit; says which, what was expected and
            what was found.
        UnknownName: the version is not served, or a region is not registered.
    """
    head = read_head(message, signature)
    return fill(head, message.id, _carried(message, head), regions)


def read_head(message: pb.ModelInferRequest, signature: ModelSignature) -> Head:
    """Check all of a request but its tensors' bytes.

    Raises:
        InvalidRequest, UnknownName: as `read_infer`.
    """
    check_version(signature, message.model_version)
    indices = _indices(message, signature)
    inputs = _wanted(message, signature, indices)
    _refuse_sequences(message.parameters)
    return Head(
        signature=signature,
        inputs=inputs,
        carried=sum(each.place is None for each in inputs),
        samples=_samples(inputs),
        outputs=_requested_outputs(message, signature),
        places=_output_places(message),
        timeout_us=natural(message.parameters, "timeout", LARGEST_TIMEOUT_US) or None,
        priority=natural(message.parameters, "priority", _LARGEST_PRIORITY),
    )


def fill(
    head: Head, request_id: str, carried: Sequence[Buffer], regions: Regions | None = None
) -> Query:
    """Return the request with this head and these bytes.

    Args:
        head: what was announced.
        request_id: the client's own.
        carried: bytes of the inputs that are not in shared memory, in the request's order.
        regions: None: there is no shared memory.

    Raises:
        InvalidRequest, UnknownName: as `read_infer`.
    """
    if regions is None and (head.places or head.carried < len(head.inputs)):
        _refuse_places(head)
    if len(carried) != head.carried:
        expected = f"{head.carried} entries, one per input"
        raise InvalidRequest(SOURCE, "raw_input_contents", expected, str(len(carried)))
    inputs = tuple([_tensor(each, carried, regions) for each in head.inputs])
    return Query(request_id, head, inputs)


def _indices(message: pb.ModelInferRequest, signature: ModelSignature) -> dict[str, int]:
    """Return the index of each input by name: all there, none twice, none unknown."""
    known = [spec.name for spec in signature.inputs]
    places: dict[str, int] = {}
    for index, given in enumerate(message.inputs):
        place = f"inputs[{index}].name"
        if given.name not in known:
            raise InvalidRequest(SOURCE, place, f"one of {listed(known)}", quoted(given.name))
        if given.name in places:
            expected = f"each input once ({given.name} is inputs[{places[given.name]}])"
            raise InvalidRequest(SOURCE, place, expected, f"{quoted(given.name)} again")
        places[given.name] = index
    missing = [name for name in known if name not in places]
    if missing:
        found = listed(places) if places else "no inputs"
        raise InvalidRequest(SOURCE, "inputs", f"an input named {quoted(missing[0])}", found)
    return places


def _wanted(
    message: pb.ModelInferRequest, signature: ModelSignature, indices: Mapping[str, int]
) -> tuple[Wanted, ...]:
    places = [
        read_place(given.parameters, f"inputs[{index}].parameters")
        for index, given in enumerate(message.inputs)
    ]
    raw = [sum(each is None for each in places[:index]) for index in range(len(places))]
    return tuple(
        _announced(message.inputs[index], index, spec, raw[index], places[index])
        for spec, index in ((spec, indices[spec.name]) for spec in signature.inputs)
    )


def _announced(
    given: pb.ModelInferRequest.InferInputTensor,
    index: int,
    spec: TensorSpec,
    raw: int,
    place: Place | None,
) -> Wanted:
    if given.datatype != spec.datatype:
        expected = f"{spec.datatype} for {spec.name}"
        where = f"inputs[{index}].datatype"
        raise InvalidRequest(SOURCE, where, expected, quoted(given.datatype))
    shape = _checked_shape(given.shape, spec, f"inputs[{index}].shape")
    return Wanted(
        name=spec.name,
        datatype=spec.datatype,
        shape=shape,
        size=DATATYPE_BYTES[spec.datatype] * math.prod(shape),
        index=index,
        raw=raw if place is None else -1,
        place=place,
    )


def _carried(message: pb.ModelInferRequest, head: Head) -> Sequence[Buffer]:
    """Return the bytes of the inputs that are not in shared memory, in the request's order."""
    raw = message.raw_input_contents
    for index, given in enumerate(message.inputs):
        shared = any(each.index == index and each.place for each in head.inputs)
        filled = filled_lists(given.contents) if given.HasField("contents") else []
        if filled and (raw or shared):
            beside = "shared memory" if shared else "raw_input_contents"
            where = f"inputs[{index}].contents.{filled[0]}"
            expected = f"no typed contents beside {beside}"
            raise InvalidRequest(SOURCE, where, expected, "elements in it")
    if raw:
        return raw
    ordered = sorted((each for each in head.inputs if each.place is None), key=lambda one: one.raw)
    return [_typed(message, each) for each in ordered]


def _typed(message: pb.ModelInferRequest, wanted: Wanted) -> bytes:
    return raw_bytes(
        message.inputs[wanted.index].contents,
        wanted.datatype,
        math.prod(wanted.shape),
        SOURCE,
        f"inputs[{wanted.index}].contents",
    )


def _tensor(wanted: Wanted, carried: Sequence[Buffer], regions: Regions | None) -> Tensor:
    place = wanted.place
    size = len(carried[wanted.raw]) if place is None else place.size
    if size != wanted.size:
        expected = f"{wanted.size} bytes for {wanted.datatype} {list(wanted.shape)}"
        raise InvalidRequest(SOURCE, _where(wanted), expected, f"{size} bytes")
    data = carried[wanted.raw] if place is None or regions is None else regions.read(place)
    if wanted.datatype == "BOOL" and bytes(data).translate(None, b"\x00\x01"):
        raise InvalidRequest(SOURCE, _where(wanted), "bytes 0 and 1 for BOOL", "others")
    return Tensor(wanted.name, wanted.datatype, wanted.shape, data)


def _where(wanted: Wanted) -> str:
    if wanted.place is None:
        return f"raw_input_contents[{wanted.raw}]"
    return f"inputs[{wanted.index}].parameters[{REGION_BYTES}]"


def _checked_shape(found: Sequence[int], spec: TensorSpec, place: str) -> tuple[int, ...]:
    fits = len(found) == len(spec.shape) and all(
        0 < size <= _LARGEST_AXIS and want in (DYNAMIC, size)
        for size, want in zip(found, spec.shape, strict=True)
    )
    if not fits:
        expected = f"{list(spec.shape)} for {spec.name} (-1: any size from 1)"
        raise InvalidRequest(SOURCE, place, expected, _shown_shape(found))
    return tuple(found)


def _samples(inputs: Sequence[Wanted]) -> int:
    first = inputs[0]
    for each in inputs[1:]:
        if each.shape[0] != first.shape[0]:
            where = f"inputs[{each.index}].shape[0]"
            expected = f"batch {first.shape[0]} as in {first.name}"
            raise InvalidRequest(SOURCE, where, expected, str(each.shape[0]))
    return first.shape[0]


def _output_places(message: pb.ModelInferRequest) -> Mapping[str, Place]:
    places = (
        (each.name, read_place(each.parameters, f"outputs[{index}].parameters"))
        for index, each in enumerate(message.outputs)
    )
    return MappingProxyType({name: place for name, place in places if place is not None})


def _refuse_places(head: Head) -> None:
    for each in head.inputs:
        if each.place is not None:
            where = f"inputs[{each.index}].parameters[{REGION}]"
            raise InvalidRequest(SOURCE, where, "the tensor in the request", "shared memory")
    for index, name in enumerate(head.outputs):
        if name in head.places:
            where = f"outputs[{index}].parameters[{REGION}]"
            expected = "an output that is sent in the answer"
            raise InvalidRequest(SOURCE, where, expected, "shared memory")


def _requested_outputs(message: pb.ModelInferRequest, signature: ModelSignature) -> tuple[str, ...]:
    known = tuple(spec.name for spec in signature.outputs)
    if not message.outputs:
        return known
    asked: dict[str, None] = {}
    for index, output in enumerate(message.outputs):
        place = f"outputs[{index}].name"
        if output.name not in known:
            raise InvalidRequest(SOURCE, place, f"one of {listed(known)}", quoted(output.name))
        if output.name in asked:
            found = f"{quoted(output.name)} again"
            raise InvalidRequest(SOURCE, place, "each output once", found)
        _refuse_classification(output.parameters, f"outputs[{index}].parameters")
        asked[output.name] = None
    return tuple(asked)


def _refuse_classification(parameters: Mapping[str, pb.InferParameter], where: str) -> None:
    if _CLASSIFICATION in parameters:
        expected = "no classification (take the largest of the output yourself)"
        found = shown(parameters[_CLASSIFICATION])
        raise InvalidRequest(SOURCE, f"{where}[{_CLASSIFICATION}]", expected, found)


def _refuse_sequences(parameters: Mapping[str, pb.InferParameter]) -> None:
    if "sequence_id" in parameters:
        found = shown(parameters["sequence_id"])
        expected = "none (models are stateless)"
        raise InvalidRequest(SOURCE, "parameters[sequence_id]", expected, found)


def _shown_shape(shape: Sequence[int]) -> str:
    axes = list(shape[:8])
    return str(axes) if len(shape) <= len(axes) else f"{len(shape)} axes: {str(axes)[:-1]}, …]"

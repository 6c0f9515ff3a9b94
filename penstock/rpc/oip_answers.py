"""Answers to inference requests → encoded messages, written by hand around the raw tensors.

The head of an answer (model, datatypes, shapes) is encoded by protobuf once and remembered; id and
raw tensors follow it, in one copy. The order of fields means nothing to readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from penstock.domain.tensors import Buffer, Tensor, byte_size
from penstock.rpc.oip import Query
from penstock.rpc.oip_parameters import REGION, REGION_BYTES, REGION_OFFSET, Place, cut
from protos import inference_pb2 as pb

# Tags: number × 8 + 2, for these have a length.
_ID = bytes((3 << 3 | 2,))
_RAW = bytes((6 << 3 | 2,))
_INFER_RESPONSE = bytes((2 << 3 | 2,))

_LONG = 0x80
_MOST_HEADS = 1_024

# Of an output: name, datatype, shape, and where it lies if it is not in the answer.
_Output: TypeAlias = tuple[str, str, tuple[int, ...], Place | None]
_Key: TypeAlias = tuple[str, str, bool, tuple[_Output, ...]]


class AnswerWriter:
    """Encodes answers; heads it has written are not encoded again."""

    def __init__(self) -> None:
        self._heads: dict[_Key, bytes] = {}

    def write(self, query: Query, outputs: Sequence[Tensor], *, emulated: bool = False) -> bytes:
        """Return an encoded ``ModelInferResponse``.

        Args:
            query: what is answered.
            outputs: at least those the query asked for.
            emulated: mark the answer as timed by an emulated device.
        """
        return b"".join(self._fields(query, outputs, emulated=emulated))

    def write_on_stream(
        self, query: Query, outputs: Sequence[Tensor], *, emulated: bool = False
    ) -> bytes:
        """Return an encoded ``ModelStreamInferResponse`` with the answer in it."""
        fields = self._fields(query, outputs, emulated=emulated)
        return b"".join((_INFER_RESPONSE, _varint(sum(map(len, fields))), *fields))

    def _fields(self, query: Query, outputs: Sequence[Tensor], *, emulated: bool) -> list[Buffer]:
        asked = outputs
        if len(outputs) != 1 or outputs[0].name != query.outputs[0]:
            by_name = {each.name: each for each in outputs}
            asked = [by_name[name] for name in query.outputs]
        fields: list[Buffer] = [self._head(query, asked, emulated=emulated)]
        if query.id:
            request_id = query.id.encode()
            fields += (_ID, _varint(len(request_id)), request_id)
        for each in asked:
            # One entry per output: clients count them. What lies in shared memory has an empty one.
            data = b"" if each.name in query.places else each.data
            fields += (_RAW, _varint(len(data)), data)
        return fields

    def _head(self, query: Query, asked: Sequence[Tensor], *, emulated: bool) -> bytes:
        signature, places = query.signature, query.places
        outputs = tuple([(x.name, x.datatype, x.shape, places.get(x.name)) for x in asked])
        key = (signature.name, signature.version, emulated, outputs)
        head = self._heads.get(key)
        if head is None:
            head = _encoded_head(key)
            if len(self._heads) >= _MOST_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[key] = head
        return head


def stream_error(model: str, request_id: str, details: str) -> bytes:
    """Return a refusal on a stream; model and id tell the client which request it was."""
    named = pb.ModelInferResponse(model_name=cut(model), id=request_id)
    refusal = pb.ModelStreamInferResponse(error_message=details, infer_response=named)
    return refusal.SerializeToString()


def _encoded_head(key: _Key) -> bytes:
    name, version, emulated, outputs = key
    head = pb.ModelInferResponse(model_name=name, model_version=version)
    if emulated:
        head.parameters["emulated"].bool_param = True
    for output, datatype, shape, place in outputs:
        added = head.outputs.add(name=output, datatype=datatype, shape=shape)
        if place is not None:
            added.parameters[REGION].string_param = place.region
            added.parameters[REGION_BYTES].int64_param = byte_size(datatype, shape)
            added.parameters[REGION_OFFSET].int64_param = place.offset
    return head.SerializeToString()


def _varint(value: int) -> bytes:
    if value < _LONG:
        return bytes((value,))
    encoded = bytearray()
    while value >= _LONG:
        encoded.append(value & 0x7F | _LONG)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

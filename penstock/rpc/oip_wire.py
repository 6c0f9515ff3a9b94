"""Encoded inference requests → domain values, without decoding what was decoded before.

A request's top-level fields are told apart by hand. All but the id and the raw tensors is its head:
a head is decoded by protobuf and checked once, and remembered by its bytes. So there is one judge
of what a message means, and the tensors' bytes are never copied: they are views of the message.
Whatever is unusual (other fields, typed contents, long heads, anything wrong) is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import DecodeError

from penstock.domain.errors import InvalidRequest, PenstockError
from penstock.rpc.oip import Head, ModelSignature, Query, Regions, fill, read_infer
from penstock.rpc.oip_parameters import SOURCE
from protos import inference_pb2 as pb

# Tags of ModelInferRequest's fields: number × 8 + 2, for they all have a length.
_ID = 3 << 3 | 2
_RAW = 7 << 3 | 2
_HEAD = frozenset(number << 3 | 2 for number in (1, 2, 4, 5, 6))

_LONG = 0x80  # a varint's byte that is not its last one
_LONGEST_LENGTH = 5  # bytes of a length; no message has 2 GiB

# What is not so usual is left to protobuf, and not remembered.
_MOST_FIELDS = 256
_MOST_HEADS = 1_024
_LONGEST_HEAD = 2_048


class NotAMessage(InvalidRequest):
    """Bytes that no protobuf message is encoded as."""

    def __init__(self) -> None:
        super().__init__(SOURCE, "", "a protobuf message", "bytes that are none")


class Split(NamedTuple):
    """An encoded request, taken apart.

    Attributes:
        head: its other fields, in order; encodes the same request without id and raw tensors.
        raw: views of the message.
    """

    head: bytes
    id: bytes
    raw: list[memoryview]


def split(message: bytes) -> Split | None:
    """Take an encoded request apart; None if it is not of the usual form."""
    view, end = memoryview(message), len(message)
    head: list[memoryview] = []
    raw: list[memoryview] = []
    request_id: bytes | None = None
    at = 0
    for _ in range(_MOST_FIELDS):
        if at >= end - 1:
            break
        tag, size, start = message[at], message[at + 1], at + 2
        if size >= _LONG:
            size, start = _length(message, at + 1)
        stop = start + size
        if stop > end:
            return None
        if tag == _RAW:
            raw.append(view[start:stop])
        elif tag in _HEAD and stop - at <= _LONGEST_HEAD:
            head.append(view[at:stop])
        elif tag == _ID and request_id is None:
            request_id = message[start:stop]
        else:
            return None
        at = stop
    return Split(b"".join(head), request_id or b"", raw) if at == end else None


def _length(message: bytes, at: int) -> tuple[int, int]:
    """Return a varint and where it ends; beyond the message if there is no usual one."""
    size = 0
    for place, byte in enumerate(message[at : at + _LONGEST_LENGTH]):
        size |= (byte & ~_LONG) << 7 * place
        if byte < _LONG:
            return size, at + place + 1
    return 0, len(message) + 1


class InferReader:
    """Reads encoded requests.

    Args:
        find: returns the signature of a model that is served now; raises UnknownName.
        regions: shared memory that requests may name; None: there is none.
    """

    def __init__(
        self, find: Callable[[str], ModelSignature], regions: Regions | None = None
    ) -> None:
        self._find = find
        self._regions = regions
        self._heads: dict[bytes, Head] = {}

    def read(self, message: bytes) -> Query:
        """Return the request.

        Raises:
            NotAMessage: the bytes are none.
            InvalidRequest: it does not fit its model.
            UnknownName: the model, its version or a region is not there.
        """
        parts = split(message)
        if parts is not None:
            head = self._heads.get(parts.head)
            if head is not None:
                try:
                    return self._refill(head, parts)
                except (PenstockError, UnicodeDecodeError):
                    del self._heads[parts.head]  # judged afresh, from the message itself
        return self._read_afresh(message, parts)

    def _refill(self, head: Head, parts: Split) -> Query:
        if self._find(head.signature.name) is not head.signature:
            raise InvalidRequest(SOURCE, "model_name", "the model as it was", "another")
        return fill(head, str(parts.id, "utf-8"), parts.raw, self._regions)

    def _read_afresh(self, message: bytes, parts: Split | None) -> Query:
        request = decode(message)
        signature = self._find(request.model_name)
        query = read_infer(request, signature, self._regions)
        if parts is not None and len(parts.raw) == query.head.carried:
            self._remember(parts.head, query.head)
        return query

    def _remember(self, encoded: bytes, head: Head) -> None:
        if len(encoded) > _LONGEST_HEAD:
            return
        if len(self._heads) >= _MOST_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[encoded] = head


def decode(message: bytes) -> pb.ModelInferRequest:
    """Return a request as protobuf reads it.

    Raises:
        NotAMessage: the bytes are none.
    """
    try:
        return pb.ModelInferRequest.FromString(message)
    except DecodeError:
        raise NotAMessage from None

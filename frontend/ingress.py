"""Open requests: their tensors on the way in, their rows on the way out, and who awaits them.

A batch is made of slices of requests, and a request may be spread over batches. Joining and
splitting happens here, on raw rows. Knows nothing of gRPC, policies or time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from penstock.domain.errors import InvalidInput, InvariantViolation
from penstock.domain.ids import RequestId
from penstock.domain.requests import DropReason, Slice, samples_of
from penstock.domain.tensors import Buffer, Tensor
from penstock.scheduling.effects import CompleteRequest, DropRequest


class JoinedTensor(NamedTuple):
    """An input of a whole batch; its data is `parts` one after the other."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parts: list[Buffer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All samples of a request are answered."""

    outputs: tuple[Tensor, ...]
    met_deadline: bool


@dataclass(frozen=True, slots=True)
class Dropped:
    """The request ended without an answer."""

    reason: DropReason
    detail: str


Outcome: TypeAlias = Answer | Dropped


@dataclass(slots=True, eq=False)
class _Open:
    """A request that has not ended.

    Attributes:
        outputs: by name; complete as soon as every row has been scattered.
    """

    samples: int
    inputs: tuple[Tensor, ...]
    future: asyncio.Future[Outcome]
    outputs: dict[str, Tensor] = field(default_factory=dict)


class Ingress:
    """Holds each request from `open` until `finish` or `drop`, whichever the dispatcher decides.

    Invariant: a request's future is resolved exactly once, and the request is forgotten then.
    """

    def __init__(self) -> None:
        self._open: dict[RequestId, _Open] = {}

    def __len__(self) -> int:
        """Return the number of requests that have not ended."""
        return len(self._open)

    def open(
        self, request: RequestId, samples: int, inputs: tuple[Tensor, ...]
    ) -> asyncio.Future[Outcome]:
        """Keep a request's inputs; the future tells how it ended."""
        if request in self._open:
            raise InvariantViolation(f"request {request} is open already")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._open[request] = _Open(samples, inputs, future)
        return future

    def gather(self, slices: Sequence[Slice]) -> list[JoinedTensor]:
        """Return the inputs of a batch, without copying a row.

        Raises:
            InvariantViolation: a slice is of a request that has ended.
        """
        samples = samples_of(slices)
        requests = [(self._known(each.request), each) for each in slices]
        return [
            JoinedTensor(
                first.name,
                first.datatype,
                (samples, *first.shape[1:]),
                [_rows_of(request, each, index) for request, each in requests],
            )
            for index, first in enumerate(requests[0][0].inputs)
        ]

    def scatter(self, slices: Sequence[Slice], tensors: Sequence[Tensor]) -> None:
        """Hand the rows of a batch's outputs to their requests; ended ones are passed over.

        Scattering the same rows again, after a batch was repeated, leaves the same result.

        Raises:
            InvalidInput: an output does not have one row per sample; nothing was handed over.
        """
        samples = samples_of(slices)
        for tensor in tensors:
            _check_rows(tensor, samples)
        offset = 0
        for each in slices:
            request = self._open.get(each.request)
            if request is not None:
                _store(request, each, tensors, offset)
            offset += each.count

    def finish(self, effect: CompleteRequest) -> None:
        """Resolve a request whose samples were all scattered."""
        request = self._close(effect.request)
        outputs = tuple(request.outputs.values())
        _resolve(request.future, Answer(outputs=outputs, met_deadline=effect.met_deadline))

    def drop(self, effect: DropRequest) -> None:
        """Resolve a request that ends without an answer."""
        request = self._close(effect.request)
        _resolve(request.future, Dropped(effect.reason, effect.detail))

    def _known(self, request: RequestId) -> _Open:
        try:
            return self._open[request]
        except KeyError:
            raise InvariantViolation(f"request {request} is not open") from None

    def _close(self, request: RequestId) -> _Open:
        closed = self._known(request)
        del self._open[request]
        return closed


def _rows_of(request: _Open, part: Slice, index: int) -> Buffer:
    """Return what a slice has of an input."""
    tensor = request.inputs[index]
    return tensor.data if part.count == request.samples else tensor.rows(part.first, part.count)


def _check_rows(tensor: Tensor, samples: int) -> None:
    if not tensor.shape or tensor.shape[0] != samples:
        found = str(list(tensor.shape))
        raise InvalidInput("stage result", tensor.name, f"{samples} rows", found)
    if len(tensor.data) % samples:
        found = f"{len(tensor.data)} bytes"
        raise InvalidInput("stage result", tensor.name, f"{samples} equal rows", found)


def _store(request: _Open, part: Slice, tensors: Iterable[Tensor], offset: int) -> None:
    for tensor in tensors:
        rows = tensor.rows(offset, part.count)
        shape = (request.samples, *tensor.shape[1:])
        if part.count == request.samples:
            request.outputs[tensor.name] = Tensor(tensor.name, tensor.datatype, shape, rows)
        else:
            _store_part(request, part, tensor, shape, rows)


def _store_part(
    request: _Open, part: Slice, tensor: Tensor, shape: tuple[int, ...], rows: Buffer
) -> None:
    """Copy some rows into a buffer for all of them."""
    row_bytes = len(rows) // part.count
    held = request.outputs.get(tensor.name)
    if held is None or held.shape != shape or memoryview(held.data).readonly:
        buffer = memoryview(bytearray(row_bytes * request.samples))
        held = Tensor(tensor.name, tensor.datatype, shape, buffer)
        request.outputs[tensor.name] = held
    first = part.first * row_bytes
    memoryview(held.data)[first : first + len(rows)] = rows


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    """Tell whoever waits; a caller that was cancelled waits no more."""
    if not future.done():
        future.set_result(outcome)

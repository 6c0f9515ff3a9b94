"""Joining and splitting: whatever the batches, each request gets exactly its own rows."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.ingress import Answer, Dropped, Ingress, Outcome
from penstock.domain.errors import InvalidInput, InvariantViolation
from penstock.domain.ids import RequestId
from penstock.domain.requests import DropReason, Slice
from penstock.domain.tensors import Tensor
from penstock.scheduling.effects import CompleteRequest, DropRequest

ROW = 3


def rows(first: int, count: int) -> bytes:
    return b"".join(bytes([each % 256] * ROW) for each in range(first, first + count))


def a_tensor(name: str, first: int, count: int) -> Tensor:
    return Tensor(name, "UINT8", (count, ROW), rows(first, count))


def open_one(ingress: Ingress, number: int, count: int) -> asyncio.Future[Outcome]:
    inputs = (a_tensor("x", 10 * number, count), a_tensor("z", 10 * number + 100, count))
    return ingress.open(RequestId(number), count, inputs)


def a_slice(request: int, first: int, count: int) -> Slice:
    return Slice(RequestId(request), first, count)


async def test_gather_joins_rows_without_copying() -> None:
    ingress = Ingress()
    x = a_tensor("x", 0, 4)
    ingress.open(RequestId(0), 4, (x,))
    ingress.open(RequestId(1), 1, (a_tensor("x", 50, 1),))
    (joined,) = ingress.gather([a_slice(1, 0, 1), a_slice(0, 1, 2)])
    assert joined[:3] == ("x", "UINT8", (3, ROW))
    assert b"".join(joined.parts) == rows(50, 1) + rows(1, 2)
    assert isinstance(joined.parts[1], memoryview)
    assert joined.parts[1].obj is x.data


async def test_gather_of_a_request_that_ended_is_a_bug() -> None:
    with pytest.raises(InvariantViolation, match="request 5 is not open"):
        Ingress().gather([a_slice(5, 0, 1)])


async def test_a_whole_request_is_answered_without_a_copy() -> None:
    ingress = Ingress()
    future = open_one(ingress, 0, 2)
    result = a_tensor("y", 7, 2)
    ingress.scatter([a_slice(0, 0, 2)], [result])
    ingress.finish(CompleteRequest(RequestId(0), True))
    answer = await future
    assert isinstance(answer, Answer)
    assert answer.met_deadline
    (y,) = answer.outputs
    assert (y.name, y.shape, bytes(y.data)) == ("y", (2, ROW), rows(7, 2))
    assert isinstance(y.data, memoryview)
    assert y.data.obj is result.data
    assert len(ingress) == 0


@given(data=st.data())
def test_any_batches_in_any_order_give_each_request_its_rows(data: st.DataObject) -> None:
    asyncio.run(_split_and_join(data))


async def _split_and_join(data: st.DataObject) -> None:
    ingress = Ingress()
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5), label="sizes")
    futures = [open_one(ingress, number, size) for number, size in enumerate(sizes)]
    samples = [(number, row) for number, size in enumerate(sizes) for row in range(size)]
    for batch in _batches(data, samples):
        joined = ingress.gather(batch)
        assert [each.name for each in joined] == ["x", "z"]
        for _ in range(data.draw(st.integers(1, 2), label="times")):  # a batch may be repeated
            outputs = [
                Tensor(f"{each.name}'", each.datatype, each.shape, b"".join(each.parts))
                for each in joined
            ]
            ingress.scatter(batch, outputs)
    for number, size in enumerate(sizes):
        ingress.finish(CompleteRequest(RequestId(number), False))
        answer = await futures[number]
        assert isinstance(answer, Answer)
        found = {each.name: (each.shape, bytes(each.data)) for each in answer.outputs}
        assert found == {
            "x'": ((size, ROW), rows(10 * number, size)),
            "z'": ((size, ROW), rows(10 * number + 100, size)),
        }


def _batches(data: st.DataObject, samples: list[tuple[int, int]]) -> list[list[Slice]]:
    """Cut samples, which are in order, into runs, and deal the runs out to batches."""
    pieces: list[Slice] = []
    for number, row in samples:
        last = pieces[-1] if pieces else None
        glue: bool = data.draw(st.booleans(), label="glue")
        if glue and last is not None and last.request == number:
            pieces[-1] = a_slice(number, last.first, last.count + 1)
        else:
            pieces.append(a_slice(number, row, 1))
    batches: list[list[Slice]] = []
    for piece in data.draw(st.permutations(pieces), label="order"):
        same: bool = data.draw(st.booleans(), label="same batch")
        if batches and same:
            batches[-1].append(piece)
        else:
            batches.append([piece])
    return batches


async def test_rows_of_a_request_that_ended_are_passed_over() -> None:
    ingress = Ingress()
    gone, kept = open_one(ingress, 0, 1), open_one(ingress, 1, 1)
    ingress.drop(DropRequest(RequestId(0), DropReason.CANCELLED, "away"))
    ingress.scatter([a_slice(0, 0, 1), a_slice(1, 0, 1)], [a_tensor("y", 0, 2)])
    ingress.finish(CompleteRequest(RequestId(1), True))
    assert await gone == Dropped(DropReason.CANCELLED, "away")
    answer = await kept
    assert isinstance(answer, Answer)
    assert bytes(answer.outputs[0].data) == rows(1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        a_tensor("y", 0, 3),
        Tensor("y", "UINT8", (), b"x"),
        Tensor("y", "UINT8", (2, ROW), b"12345"),
    ],
)
async def test_a_result_of_the_wrong_size_is_refused_whole(wrong: Tensor) -> None:
    ingress = Ingress()
    future = open_one(ingress, 0, 2)
    with pytest.raises(InvalidInput, match="stage result: y: expected 2"):
        ingress.scatter([a_slice(0, 0, 2)], [a_tensor("fine", 0, 2), wrong])
    ingress.finish(CompleteRequest(RequestId(0), True))
    assert await future == Answer(outputs=(), met_deadline=True)


async def test_nobody_waiting_is_no_trouble() -> None:
    ingress = Ingress()
    open_one(ingress, 0, 1).cancel()
    ingress.drop(DropRequest(RequestId(0), DropReason.CANCELLED))
    assert len(ingress) == 0


async def test_a_request_is_open_once() -> None:
    ingress = Ingress()
    open_one(ingress, 0, 1)
    with pytest.raises(InvariantViolation, match="open already"):
        open_one(ingress, 0, 1)

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.domain.blocks import TensorSpec
from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Tensor
from worker.rows import Piece, Rows

SPECS = (
    TensorSpec(name="x", datatype="UINT8", shape=(-1, 2)),
    TensorSpec(name="behind", datatype="UINT8", shape=(3, -1, 2)),
    TensorSpec(name="same", datatype="UINT8", shape=(4,)),
)
ROWS = Rows(SPECS)


def tensor(name: str, *shape: int, start: int = 0) -> Tensor:
    size = 1
    for each in shape:
        size *= each
    return Tensor(name, "UINT8", shape, bytes((start + at) % 256 for at in range(size)))


def contents(tensors: tuple[Tensor, ...]) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [(each.name, each.shape, bytes(each.data)) for each in tensors]


def test_rows_are_cut_out_wherever_the_batch_axis_is() -> None:
    whole = (tensor("x", 3, 2), tensor("behind", 3, 3, 2), tensor("same", 4))
    assert contents(ROWS.cut(whole, 1, 2)) == [
        ("x", (2, 2), bytes([2, 3, 4, 5])),
        ("behind", (3, 2, 2), bytes([2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17])),
        ("same", (4,), bytes([0, 1, 2, 3])),
    ]


def test_a_tensor_nobody_described_has_its_rows_first() -> None:
    assert contents(ROWS.cut((tensor("other", 3, 2),), 2, 1)) == [("other", (1, 2), bytes([4, 5]))]


def test_a_single_piece_is_passed_on_as_it_is() -> None:
    whole = (tensor("x", 3, 2),)
    assert ROWS.join([Piece(0, 3, whole)]) is whole


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_was_cut_is_joined_in_order_of_rows(counts: list[int], order: Random) -> None:
    size = sum(counts)
    whole = (tensor("x", size, 2), tensor("behind", 3, size, 2), tensor("same", 4))
    firsts = [sum(counts[:at]) for at in range(len(counts))]
    pieces = [
        Piece(first, count, ROWS.cut(whole, first, count))
        for first, count in zip(firsts, counts, strict=True)
    ]
    order.shuffle(pieces)
    assert contents(ROWS.join(pieces)) == contents(whole)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (tensor("y", 1, 2), "expected x, found y"),
        (tensor("x", 1, 3), r"expected UINT8 \[1, 2\], found UINT8 \[1, 3\]"),
        (Tensor("x", "INT8", (1, 2), bytes(2)), r"found INT8 \[1, 2\]"),
    ],
)
def test_pieces_of_different_tensors_are_told(other: Tensor, found: str) -> None:
    with pytest.raises(InvalidInput, match=found):
        ROWS.join([Piece(0, 1, (tensor("x", 1, 2),)), Piece(1, 1, (other,))])

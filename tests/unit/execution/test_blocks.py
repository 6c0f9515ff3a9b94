"""Blocks chained by the names of their tensors: what travels, what is computed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from execution.blocks import Chain, load_program
from penstock.domain.blocks import Block, TensorSpec
from penstock.domain.errors import InvalidGraph, InvalidInput
from penstock.domain.execution import ExecutionOptions
from tests.support.repositories import a_block

X, Y, Z = (TensorSpec(name=name, datatype="FP32", shape=(-1, 2)) for name in "xyz")


class Doing(torch.nn.Module):
    def __init__(self, do: Callable[..., object]) -> None:
        super().__init__()
        self._do = do

    def forward(self, *tensors: torch.Tensor) -> object:
        return self._do(*tensors)


def blocks() -> tuple[Block, Block]:
    """Return one that passes a tensor by, and one that takes both in another order."""
    return a_block(0, inputs=(X,), outputs=(X, Y), sha256=""), a_block(
        1, inputs=(Y, X), outputs=(Z,), sha256=""
    )


def test_tensors_find_their_place_by_name() -> None:
    chain = Chain(blocks(), [Doing(lambda x: (x, 10 * x)), Doing(lambda y, x: y - x)])
    (found,) = chain(torch.ones(3, 2))
    assert found.tolist() == [[9.0, 9.0]] * 3


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_travels_keeps_its_type(precision: str) -> None:
    seen: list[torch.dtype] = []

    def doubled(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.dtype)
        return 2 * x

    chain = Chain([replace(blocks()[0], outputs=(Y,))], [Doing(doubled)])
    chain.convert(ExecutionOptions(precision=precision))  # type: ignore[arg-type]
    (found,) = chain(torch.full((3, 2), 1.0001))
    assert seen == [torch.float16 if precision == "fp16" else torch.bfloat16]
    assert found.dtype is torch.float32
    assert found.tolist() == [[2.0, 2.0]] * 3


def test_images_are_put_in_order_and_come_back_in_theirs() -> None:
    image = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 4, 4))
    seen: list[bool] = []

    def same(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x

    chain = Chain([a_block(0, inputs=(image,), outputs=(image,), sha256="")], [Doing(same)])
    chain.convert(ExecutionOptions(memory_format="channels_last"))
    (found,) = chain(torch.randn(2, 3, 4, 4))
    assert seen == [True]
    assert found.is_contiguous()


def test_a_block_that_gives_something_else_is_named() -> None:
    chain = Chain(blocks(), [Doing(lambda x: (x,)), Doing(lambda y, x: y)])
    with pytest.raises(InvalidInput, match=r"block_00\.pt2: outputs: expected 2, found 1"):
        chain(torch.ones(1, 2))


def test_a_file_that_is_no_program_is_named() -> None:
    with pytest.raises(InvalidGraph, match=r"^here\.pt2: expected an exported program, found "):
        load_program(b"junk", "here.pt2", torch.device("cpu"))

"""Compiled or as it is; torch's compiler is scripted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from execution import program
from execution.blocks import Chain
from execution.compiling import compiled, reason_of
from execution.program import Program
from penstock.domain.blocks import TensorSpec
from penstock.domain.execution import ExecutionOptions
from tests.support.repositories import a_block

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def a_chain() -> Chain:
    return Chain([a_block(0, inputs=(X,), outputs=(X,), sha256="")], [Doubling()])


def a_program(monkeypatch: pytest.MonkeyPatch, run: Callable[..., object]) -> Program:
    monkeypatch.setattr(program, "compiled", lambda _module: run)
    return Program("it", a_chain(), ExecutionOptions(compile="on"), compiles=True)


def test_what_cannot_be_compiled_is_asked_once_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(x: torch.Tensor) -> object:
        asked.append(len(x))
        raise RuntimeError("no")

    it = a_program(monkeypatch, refuse)
    assert it.is_compiled
    for rows in (1, 2):
        (found,) = it.first_run([torch.ones(rows, 2)])
        assert found.tolist() == [[2.0, 2.0]] * rows
    assert asked == [1]
    assert not it.is_compiled
    assert it.remark == "not compiled: RuntimeError: no"


def test_memory_that_is_short_is_no_reason_not_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(_: torch.Tensor) -> object:
        raise torch.OutOfMemoryError("full")

    it = a_program(monkeypatch, burst)
    with pytest.raises(torch.OutOfMemoryError):
        it.first_run([torch.ones(1, 2)])
    assert it.is_compiled


def test_each_module_is_compiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch keeps and counts what it compiled by code, whichever module it runs.
    seen: list[Callable[..., object]] = []

    def compiler(run: Callable[..., object], **_: object) -> Callable[..., object]:
        seen.append(run)
        return run

    monkeypatch.setattr(torch, "compile", compiler)
    for _ in range(2):
        (found,) = compiled(a_chain())(torch.ones(1, 2))
        assert found.tolist() == [[2.0, 2.0]]
    first, second = (run.__code__ for run in seen)
    assert first is not second


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("no\nand a long story", "ValueError: no"),
        ("backend='inductor' raised:\nInvalidCxxCompiler: none\n", "InvalidCxxCompiler: none"),
        ("", "ValueError: "),
    ],
)
def test_reasons_are_one_line_that_says_something(message: str, told: str) -> None:
    reason = reason_of(ValueError(message))
    assert reason.endswith(told)
    assert "\n" not in reason
    assert len(reason_of(ValueError("x" * 1_000))) == 200

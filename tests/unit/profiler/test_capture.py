"""Capturing modules: names, batch, errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from penstock.domain.errors import InvalidGraph
from profiler.capture import capture, load_factory


class Add(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor | None]:
        return {"total": left + right, "nothing": None, "difference": left - right}


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = torch.nn.Buffer(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x + self.calls


class Choosy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Ragged(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]


class Fixed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), 3) + 1  # len gives a plain number


class Transposed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.t()


class Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, torch.zeros(3)


def rows(count: int) -> torch.Tensor:
    return torch.arange(3.0 * count).reshape(count, 3)


def test_inputs_go_by_keyword_and_dict_outputs_keep_their_keys() -> None:
    captured = capture(Add(), {"right": rows(2), "left": 2 * rows(2)})
    assert captured.input_names == ("right", "left")
    assert captured.output_names == ("total", "difference")
    total, difference = captured.program.module()(rows(3), 5 * rows(3))
    assert torch.equal(total, 6 * rows(3))
    assert torch.equal(difference, 4 * rows(3))


def test_unknown_input_names_go_in_order() -> None:
    captured = capture(Add(), {"a": rows(2), "b": rows(2)}, ["sum", "rest"])
    assert captured.input_names == ("a", "b")
    assert captured.output_names == ("sum", "rest")


def test_a_tensor_and_a_nest_of_tensors_get_numbers() -> None:
    class Nest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            return x + 1, [x + 2, x + 3]

    assert capture(Nest(), {"x": rows(2)}).output_names == ("output0", "output1", "output2")
    assert capture(torch.nn.ReLU(), {"x": rows(2)}).output_names == ("output0",)


@pytest.mark.parametrize("example", [1, 2, 5])
def test_the_batch_is_free_whatever_the_example(example: int) -> None:
    program = capture(torch.nn.Linear(3, 2), {"input": rows(example)}).program.module()
    for batch in (1, 2, 7):
        assert program(rows(batch))[0].shape == (batch, 2)


def test_operators_that_write_in_place_are_replaced() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(inplace=True))
    captured = capture(module, {"x": rows(2)})
    targets = {str(node.target) for node in captured.program.graph.nodes}
    assert "aten.relu.default" in targets
    assert "aten.relu_.default" not in targets


def test_dropout_is_idle_and_the_module_in_evaluation_mode() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(3, 3))
    captured = capture(module, {"x": rows(2)})
    assert not module.training
    assert all("dropout" not in str(node.target) for node in captured.program.graph.nodes)


@pytest.mark.parametrize(
    ("module", "inputs", "told"),
    [
        (Counting(), {"x": rows(2)}, "no state between requests"),
        (Choosy(), {"x": rows(2)}, "dynamic batch"),
        (Fixed(), {"x": rows(2)}, r"specialized it to be a constant \(2\)"),
        (Ragged(), {"x": rows(2)}, "one dynamic size"),
        (Add(), {"left": rows(2), "right": rows(3)}, "one batch size on the first axis"),
        (Add(), {"left": rows(2), "right": torch.tensor(1.0)}, "a tensor with a batch axis"),
        (torch.nn.Flatten(0), {"input": rows(2)}, "output0: expected the batch on the first axis"),
        (Transposed(), {"x": rows(2)}, "output0: expected the batch on the first axis"),
        (Constant(), {"x": rows(2)}, "output1: expected the batch on the first axis"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], told: str
) -> None:
    with pytest.raises(InvalidGraph, match=told) as caught:
        capture(module, inputs, source="mine")
    assert str(caught.value).startswith("mine")
    assert "\n" not in str(caught.value)


def test_output_names_must_be_as_many_as_outputs() -> None:
    with pytest.raises(InvalidGraph, match="output_names: expected 1 names, found 2"):
        capture(torch.nn.ReLU(), {"x": rows(2)}, ["one", "two"])


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "their_model", raising=False)

    def write(body: str) -> None:
        text = f"import torch\ndef build():\n    return {body}\nnumber = 3\n"
        (tmp_path / "their_model.py").write_text(text, encoding="utf-8")

    return write


def test_a_factory_is_found_in_the_working_directory(factories: Callable[[str], None]) -> None:
    factories('torch.nn.ReLU(), {"x": torch.zeros(1, 3)}, ["y"]')
    source = load_factory("their_model:build")
    assert isinstance(source.module, torch.nn.ReLU)
    assert list(source.inputs) == ["x"]
    assert source.output_names == ("y",)


@pytest.mark.parametrize(
    ("reference", "body", "told"),
    [
        ("their_model", "None", "module:function"),
        ("their_model:missing", "None", "an importable function"),
        ("no_such_module:build", "None", "an importable function"),
        ("their_model:number", "None", "a function, found int"),
        ("their_model:build", "None", "found NoneType"),
        ("their_model:build", "torch.nn.ReLU(), {'x': 3}", "a tensor with a batch axis"),
    ],
)
def test_a_wrong_factory_is_told_in_one_line(
    factories: Callable[[str], None], reference: str, body: str, told: str
) -> None:
    factories(body)
    with pytest.raises(InvalidGraph, match=told):
        load_factory(reference)

"""Turn a PyTorch module, or a saved program, into a clean functional graph with a dynamic batch.

Knows torch.export. Knows nothing of blocks, files or latency.

A *factory* is a function that the owner of a model writes; it needs nothing of ours. It returns
``(module, inputs)`` or ``(module, inputs, output_names)``: the module in the state it is to serve,
its example inputs by name (tensors, batch axis first, any batch size) and, if wanted, names for
its outputs. Inputs go to ``forward`` by keyword when every name is one of its parameters, else in
order. Outputs may be a tensor or any nesting of tuples, lists and dicts of tensors (``ModelOutput``
included); those of a flat dict keep its keys, others are called ``output0``, ``output1`` ….
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from penstock.domain.errors import InvalidGraph

Inputs: TypeAlias = Mapping[str, torch.Tensor]

LEAST_EXAMPLE_BATCH = 2  # torch specialises what it sees at batch 1
ATEN = torch.ops.aten
# Functional graphs have no use for these: nothing is written in place, dtypes are known.
IDENTITIES = (ATEN.alias.default, ATEN.detach.default, ATEN.lift_fresh_copy.default)
CHECKS = (ATEN._assert_tensor_metadata.default,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module with example inputs; what a factory returns."""

    module: torch.nn.Module
    inputs: Inputs
    output_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A model as a program.

    Attributes:
        reference: the model as it was given; takes its inputs in order, returns its outputs.
        program: functional: no operator writes to its inputs.
        input_names, output_names: in the order of the program's inputs and outputs.
    """

    reference: torch.nn.Module
    program: ExportedProgram
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


class _ByName(torch.nn.Module):
    """Calls a module with tensors in a fixed order and returns its tensors in a fixed order."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.by_keyword = set(names) <= set(inspect.signature(module.forward).parameters)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.by_keyword:
            result = self.module(**dict(zip(self.names, tensors, strict=True)))
        else:
            result = self.module(*tensors)
        return tuple(leaf for leaf in pytree.tree_leaves(result) if leaf is not None)


class _Saved(torch.nn.Module):
    """Calls a saved program with tensors in the order of its graph's inputs."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.module = program.module()
        self.structure = program.call_spec.in_spec

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arguments, options = pytree.tree_unflatten(tensors, self.structure)
        result = self.module(*arguments, **options)
        return tuple(leaf for leaf in pytree.tree_leaves(result) if leaf is not None)


def load_factory(reference: str) -> Source:
    """Call the factory that ``module:function`` names and check what it returns.

    The working directory is importable, as it is under ``python -m``.

    Raises:
        InvalidGraph: no such function, or it returns something else than it should.
    """
    function = _find(reference)
    made = function()
    match made:
        case (torch.nn.Module() as module, Mapping() as inputs):
            return Source(module=module, inputs=_checked(reference, inputs))
        case (torch.nn.Module() as module, Mapping() as inputs, Sequence() as names):
            return Source(
                module=module, inputs=_checked(reference, inputs), output_names=tuple(names)
            )
        case _:
            raise InvalidGraph(
                reference, "", "(module, {input name: example tensor})", type(made).__name__
            )


def _find(reference: str) -> Callable[[], object]:
    module_name, _, name = reference.partition(":")
    if not name:
        raise InvalidGraph(reference, "", "module:function or a .pt2 file", "neither")
    here = os.getcwd()  # a path entry is text
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise InvalidGraph(reference, "", "an importable function", str(error)) from error
    if not callable(found):
        raise InvalidGraph(reference, "", "a function", type(found).__name__)
    return found  # type: ignore[no-any-return]  # what it returns is checked by the caller


def _checked(source: str, inputs: Mapping[Any, object]) -> dict[str, torch.Tensor]:
    checked: dict[str, torch.Tensor] = {}
    for name, tensor in inputs.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.dim() < 1:
            raise InvalidGraph(
                source, f"inputs[{name!r}]", "a tensor with a batch axis", type(tensor).__name__
            )
        checked[name] = tensor
    if len({len(tensor) for tensor in checked.values()}) != 1:
        found = {name: tuple(tensor.shape) for name, tensor in checked.items()}
        raise InvalidGraph(source, "inputs", "one batch size on the first axis", str(found))
    return checked


def capture(
    module: torch.nn.Module,
    inputs: Inputs,
    output_names: Sequence[str] | None = None,
    *,
    source: str = "module",
) -> Captured:
    """Export a module with a dynamic batch, for inference.

    Puts the module into evaluation mode; changes nothing else of it.

    Args:
        module: its weights and inputs on the CPU.
        inputs: example inputs, batch axis first.
        output_names: for its outputs in order.
        source: what to call it in errors.

    Raises:
        InvalidGraph: it cannot be exported, or its shapes depend on data, or its state changes.
    """
    examples = {name: _widened(tensor) for name, tensor in _checked(source, inputs).items()}
    module.eval()
    wrapped = _ByName(module, tuple(examples))
    batch = Dim("batch", min=1)
    shapes = (tuple({0: batch} for _ in examples),)
    try:
        with torch.no_grad(), quiet_export():
            names = _output_names(module, wrapped, examples, output_names)
            whole = torch.export.export(
                wrapped, tuple(examples.values()), dynamic_shapes=shapes, strict=False
            )
    except InvalidGraph:
        raise
    except Exception as error:  # torch.export fails in very many ways, all of them the model's
        expected = "a module that torch.export can capture with a dynamic batch"
        raise InvalidGraph(source, "", expected, _first_line(error)) from error
    return _finished(wrapped, whole, tuple(examples), names, source)


def capture_file(path: Path, output_names: Sequence[str] | None = None) -> Captured:
    """Read a program that torch.export saved, such as ``model.pt2``.

    Raises:
        InvalidGraph: it is no such file, or it was exported for one batch size only.
    """
    try:
        with quiet_export():
            whole = torch.export.load(path)
            reference = _Saved(whole)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        expected = "a program saved by torch.export.save"
        raise InvalidGraph(str(path), "", expected, _first_line(error)) from error
    signature = whole.graph_signature
    names = tuple(_plain_name(name) for name in signature.user_inputs)
    count = len(signature.user_outputs)
    outputs = tuple(output_names or _numbered(count))
    return _finished(reference, whole, names, outputs, str(path))


def _finished(
    reference: torch.nn.Module,
    whole: ExportedProgram,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    source: str,
) -> Captured:
    _refuse_one_batch(whole, source)
    program = whole
    if any(_may_write(node) for node in whole.graph.nodes):
        with torch.no_grad(), quiet_export():
            program = whole.run_decompositions({})
    _refuse_state(program, source)
    if len(outputs) != len(program.graph_signature.user_outputs):
        count = len(program.graph_signature.user_outputs)
        raise InvalidGraph(source, "output_names", f"{count} names", str(len(outputs)))
    _refuse_other_axes(program, (*inputs, *outputs), source)
    _simplify(program)
    return Captured(reference=reference, program=program, input_names=inputs, output_names=outputs)


def _refuse_one_batch(program: ExportedProgram, source: str) -> None:
    symbols = len(program.range_constraints)
    if symbols != 1:
        expected = "a program with one dynamic size, the batch"
        raise InvalidGraph(source, "", expected, f"{symbols} dynamic sizes")


def _refuse_state(program: ExportedProgram, source: str) -> None:
    for output in program.graph_signature.output_specs:
        if output.kind is not OutputKind.USER_OUTPUT:
            expected = "a model that keeps no state between requests"
            raise InvalidGraph(source, "", expected, f"{output.kind.name} of {output.target}")
    for given in program.graph_signature.input_specs:
        if given.kind in (InputKind.TOKEN, InputKind.CUSTOM_OBJ):
            expected = "a model made of tensors only"
            raise InvalidGraph(source, "", expected, f"{given.kind.name} {given.target}")


def _refuse_other_axes(program: ExportedProgram, names: Sequence[str], source: str) -> None:
    signature = program.graph_signature
    given = {*signature.user_inputs}
    nodes = [node for node in program.graph.nodes if node.name in given]
    nodes += program.graph.output_node().args[0]
    for name, node in zip(names, nodes, strict=True):
        shape = node.meta["val"].shape if isinstance(node, Node) else ()
        if not shape or not is_batch(shape[0]) or not all(isinstance(s, int) for s in shape[1:]):
            expected = "the batch on the first axis and no other dynamic size"
            raise InvalidGraph(source, name, expected, f"({', '.join(map(str, shape))})")


def is_batch(size: object) -> bool:
    """Say whether a size is the batch itself: the one symbol of a program, not 12 times it."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.is_Symbol)


def _simplify(program: ExportedProgram) -> None:
    """Drop what serving does not need: copies, aliases, idle dropout, metadata checks."""
    graph = program.graph
    for node in reversed(list(graph.nodes)):
        if node.op != "call_function":
            continue
        if node.target in CHECKS:
            graph.erase_node(node)
        elif node.target in IDENTITIES or _is_idle_dropout(node) or _is_idle_clone(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _may_write(node: Node) -> bool:
    """Say whether an operator writes to its inputs, or hides operators that may."""
    if node.op == "get_attr":
        return True
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_idle_dropout(node: Node) -> bool:
    return node.target is ATEN.dropout.default and not node.args[2]


def _is_idle_clone(node: Node) -> bool:
    if node.target is not ATEN.clone.default or node.kwargs.get("memory_format") is not None:
        return False
    # A copy may lay memory out anew, and a later view may rely on that.
    before, after = node.all_input_nodes[0].meta["val"], node.meta["val"]
    return str(before.stride()) == str(after.stride())


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    if len(tensor) >= LEAST_EXAMPLE_BATCH:
        return tensor
    return torch.cat([tensor] * LEAST_EXAMPLE_BATCH)


def _output_names(
    module: torch.nn.Module, wrapped: _ByName, examples: Inputs, given: Sequence[str] | None
) -> tuple[str, ...]:
    if given is not None:
        return tuple(given)
    result = module(**examples) if wrapped.by_keyword else module(*examples.values())
    if isinstance(result, Mapping):
        present = {name: value for name, value in result.items() if value is not None}
        if all(isinstance(value, torch.Tensor) for value in present.values()):
            return tuple(str(name) for name in present)
    leaves = [leaf for leaf in pytree.tree_leaves(result) if leaf is not None]
    return _numbered(len(leaves))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"output{number}" for number in range(count))


def _plain_name(placeholder: str) -> str:
    return placeholder.removeprefix("args_")


def _first_line(error: Exception) -> str:
    """Return what went wrong, in one line; torch lists its reasons with dashes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    told = (reasons or lines or [""])[0].partition(". If you")[0]
    return f"{type(error).__name__}: {told}"


@contextmanager
def quiet_export() -> Iterator[None]:
    """Silence what torch warns of inside its own exporter; it is not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

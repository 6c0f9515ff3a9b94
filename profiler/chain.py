"""A captured program as a chain of layers, and what has to cross a cut at each place.

Knows graphs. Knows nothing of blocks, files or devices.

Not every value crosses. A value that does not depend on the inputs' data (constants, position
codes, the batch size) is computed anew where it is needed. A view of something smaller, such as an
expanded mask, is sent as what it is a view of. Tensors cross densely packed: one that lies
transposed in memory is sent in the order it lies and turned back by its receiver, so that every
operator sees the strides it was exported with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import Graph, Node

from execution.datatypes import DATATYPES
from penstock.domain.blocks import DYNAMIC, TensorSpec
from penstock.domain.errors import InvalidGraph
from penstock.domain.graph import Layer, ModelGraph
from penstock.domain.ids import ModelName
from penstock.domain.units import Bytes
from profiler.capture import Captured, is_batch
from profiler.work import (
    ATEN,
    LAYOUTS,
    NO_WORK,
    VIEWS,
    is_view,
    sample_bytes,
    tensor_bytes,
    work_of,
)

INPUT_POSITION = -1  # the model's inputs are there before the first layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter, buffer or constant of the program."""

    spec: InputSpec
    tensor: torch.Tensor

    @property
    def size_bytes(self) -> Bytes:
        """Its own bytes, whatever storage it lies in."""
        return self.tensor.numel() * self.tensor.element_size()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A program as layers in order.

    Attributes:
        inputs: the placeholders of the model's inputs.
        outputs: nodes whose values the model returns.
        weights: by their placeholder.
        batch: the node that reads the batch size from the first input; None if none needs it.
        free: nodes whose value does not depend on the inputs' data, weights apart.
        layers: nodes of each layer, in order; places inside a layer cannot be cut.
        crossings: what crosses after layer i, in a fixed order; one entry less than layers.
        names: what tensors that cross, the inputs included, are called.
    """

    captured: Captured
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    weights: Mapping[Node, Weight]
    batch: Node | None
    free: frozenset[Node]
    layers: tuple[tuple[Node, ...], ...]
    crossings: tuple[tuple[Node, ...], ...]
    names: Mapping[Node, str]
    order: Mapping[Node, int] = field(repr=False)

    def crossing_into(self, layer: int) -> tuple[Node, ...]:
        """Return what a block that begins with `layer` takes in."""
        return self.crossings[layer - 1] if layer else self.inputs

    def graph(self, model: ModelName) -> ModelGraph:
        """Return the chain as numbers, for one sample."""
        sizes = {node: weight.size_bytes for node, weight in self.weights.items()}
        return ModelGraph(
            model=model,
            layers=tuple(_layer(nodes, sizes) for nodes in self.layers),
            cut_bytes=tuple(
                sum(tensor_bytes(node.meta["val"]) for node in crossing)
                for crossing in self.crossings
            ),
        )


def build_chain(captured: Captured, source: str = "module") -> Chain:
    """Arrange a captured program as a chain of layers.

    Raises:
        InvalidGraph: the program has no operator that depends on its inputs.
    """
    program = captured.program
    inputs, weights = _placeholders(captured)
    batch = _share_batch_size(program.graph, inputs)
    nodes = list(program.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    free = _independent(nodes, set(weights), batch)
    groups = _single_layers(nodes, free)
    if not groups:
        raise InvalidGraph(source, "", "operators that depend on the inputs", "none")
    outputs = _outputs(program.graph)
    crossings = _crossings(groups, inputs, outputs, free, order)
    layers, kept = _merge_uncuttable(groups, crossings)
    return Chain(
        captured=captured,
        inputs=inputs,
        outputs=outputs,
        weights=weights,
        batch=batch,
        free=free,
        layers=layers,
        crossings=kept,
        names=_names(captured, inputs, kept),
        order=order,
    )


def packed_axes(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return the order of axes in which a tensor lies densely in memory, or None if it does not.

    (0, 1, 2, …) for a contiguous tensor.
    """
    strides = [_example(stride) for stride in tensor.stride()]
    sizes = [_example(size) for size in tensor.shape]
    axes = sorted(range(len(sizes)), key=lambda axis: (-strides[axis], axis))
    expected = 1
    for axis in reversed(axes):
        if sizes[axis] != 1 and strides[axis] != expected:
            return None
        expected *= sizes[axis]
    return tuple(axes)


def packed(tensor: torch.Tensor) -> torch.Tensor:
    """Return the dense view in which a tensor crosses; the tensor itself if there is none."""
    axes = packed_axes(tensor)
    return tensor if axes is None or axes == tuple(range(len(axes))) else tensor.permute(axes)


def batch_axis(tensor: torch.Tensor) -> int | None:
    """Return the one axis that is the batch size; None if no axis is."""
    for axis, size in enumerate(tensor.shape):
        if is_batch(size):
            return axis
    return None


def tensor_spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Describe a fake tensor for the wire."""
    shape = tuple(size if isinstance(size, int) else DYNAMIC for size in tensor.shape)
    return TensorSpec(name=name, datatype=DATATYPES[tensor.dtype], shape=shape)


def _example(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _placeholders(captured: Captured) -> tuple[tuple[Node, ...], dict[Node, Weight]]:
    program = captured.program
    inputs: list[Node] = []
    weights: dict[Node, Weight] = {}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(nodes, program.graph_signature.input_specs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(node)
            continue
        name = spec.target or ""
        stored = program.state_dict.get(name)
        tensor = program.constants[name] if stored is None else stored
        weights[node] = Weight(spec=spec, tensor=tensor)
    return tuple(inputs), weights


def _outputs(graph: Graph) -> tuple[Node, ...]:
    return tuple(graph.output_node().args[0])  # type: ignore[arg-type]  # export returns a tuple


def _share_batch_size(graph: Graph, inputs: Sequence[Node]) -> Node | None:
    """Let one node read the batch size, from the first input; return it if it is needed."""
    readers = [
        node
        for node in graph.find_nodes(op="call_function", target=ATEN.sym_size.int)
        if is_batch(node.meta["val"])
    ]
    if not readers:
        return None
    with graph.inserting_after(list(graph.find_nodes(op="placeholder"))[-1]):
        batch = graph.call_function(ATEN.sym_size.int, (inputs[0], 0))
    batch.meta["val"] = inputs[0].meta["val"].shape[0]
    for reader in readers:
        reader.replace_all_uses_with(batch)
        graph.erase_node(reader)
    return batch


def _independent(nodes: Sequence[Node], weights: set[Node], batch: Node | None) -> frozenset[Node]:
    """Return the nodes that no input's data reaches."""
    free = set(weights)
    for node in nodes:
        is_constant = node is batch or node.op == "get_attr"
        is_call = node.op == "call_function"
        if is_constant or (is_call and all(each in free for each in node.all_input_nodes)):
            free.add(node)
    return frozenset(free - weights)


def _single_layers(nodes: Sequence[Node], free: frozenset[Node]) -> list[list[Node]]:
    """One layer per operator; what unpacks an operator's tuple stays with it."""
    layers: list[list[Node]] = []
    layer_of: dict[Node, list[Node]] = {}
    for node in nodes:
        if node.op != "call_function" or node in free:
            continue
        producer = node.args[0] if node.args else None
        if isinstance(producer, Node) and isinstance(producer.meta.get("val"), (tuple, list)):
            layer = layer_of[producer]
        else:
            layer = []
            layers.append(layer)
        layer.append(node)
        layer_of[node] = layer
    return layers


def _crossings(
    layers: Sequence[Sequence[Node]],
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    free: frozenset[Node],
    order: Mapping[Node, int],
) -> list[tuple[Node, ...]]:
    position = dict.fromkeys(inputs, INPUT_POSITION)
    for place, layer in enumerate(layers):
        position.update(dict.fromkeys(layer, place))
    last = {node: _last_use(node, position, outputs, len(layers)) for node in position}
    alive: list[set[Node]] = [set() for _ in range(len(layers) - 1)]
    for node, made in position.items():
        for place in range(max(made, 0), min(last[node], len(layers) - 1)):
            alive[place].add(_sent_as(node, free))
    return [tuple(sorted(nodes, key=order.__getitem__)) for nodes in alive]


def _last_use(node: Node, position: Mapping[Node, int], outputs: Sequence[Node], end: int) -> int:
    if node in outputs:
        return end
    return max((position[user] for user in node.users if user in position), default=-1)


def _sent_as(node: Node, free: frozenset[Node]) -> Node:
    """Follow views back to the smallest tensor from which the receiver can make this one."""
    best, current = node, node
    while current.target in VIEWS or current.target in LAYOUTS:
        sources = [each for each in current.all_input_nodes if each not in free]
        if len(sources) != 1 or not isinstance(sources[0].meta.get("val"), torch.Tensor):
            break
        current = sources[0]
        smaller = sample_bytes(current) < sample_bytes(best)
        if _can_cross(current) and (smaller or not _can_cross(best)):
            best = current
    return best


def _can_cross(node: Node) -> bool:
    """Say whether a value is a tensor whose only dynamic size is at most one plain batch axis."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype not in DATATYPES:
        return False
    dynamic = [size for size in value.shape if not isinstance(size, int)]
    return len(dynamic) <= 1 and all(is_batch(size) for size in dynamic)


def _can_cut(crossing: Sequence[Node]) -> bool:
    """Say whether all values can cross and one of them tells the receiver the batch size."""
    if not all(_can_cross(node) for node in crossing):
        return False
    return any(batch_axis(node.meta["val"]) is not None for node in crossing)


def _merge_uncuttable(
    layers: Sequence[Sequence[Node]], crossings: Sequence[tuple[Node, ...]]
) -> tuple[tuple[tuple[Node, ...], ...], tuple[tuple[Node, ...], ...]]:
    merged: list[list[Node]] = [list(layers[0])]
    kept: list[tuple[Node, ...]] = []
    for layer, crossing in zip(layers[1:], crossings, strict=True):
        if _can_cut(crossing):
            kept.append(crossing)
            merged.append(list(layer))
        else:
            merged[-1].extend(layer)
    return tuple(tuple(layer) for layer in merged), tuple(kept)


def _names(
    captured: Captured, inputs: Sequence[Node], crossings: Sequence[tuple[Node, ...]]
) -> dict[Node, str]:
    names = dict(zip(inputs, captured.input_names, strict=True))
    taken = {*captured.input_names, *captured.output_names}
    for crossing in crossings:
        for node in crossing:
            if node not in names:
                names[node] = _untaken(node.name, taken)
                taken.add(names[node])
    return names


def _untaken(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def _layer(nodes: Sequence[Node], weights: Mapping[Node, Bytes]) -> Layer:
    work = sum((work_of(node, weights) for node in nodes), start=NO_WORK)
    main = next((node for node in nodes if not is_view(node)), nodes[0])
    return Layer(
        name=main.name,
        operator=str(main.target),
        flops=work.flops,
        activation_bytes=work.activation_bytes,
        weight_bytes=work.weight_bytes,
        launches=work.launches,
    )

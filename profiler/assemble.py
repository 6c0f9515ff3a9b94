"""Build the program of one block: its own operators, its own weights, the batch still dynamic.

Knows torch.export's program format. Knows nothing of files or devices. The program is put together
from the captured graph's own nodes instead of being traced again: shapes, symbols and names stay
those of the whole model, and equal models give equal files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node
from torch.fx.node import Argument
from torch.utils import _pytree as pytree

from penstock.domain.blocks import TensorSpec
from penstock.domain.units import Bytes
from profiler.capture import quiet_export
from profiler.chain import Chain, Weight, batch_axis, packed, packed_axes, tensor_spec
from profiler.work import ATEN, NO_WORK, Work, is_view, sample_bytes, work_of

STRICT_VIEWS = (ATEN.view.default, ATEN._unsafe_view.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockProgram:
    """A block ready to be saved, with what its description needs."""

    program: ExportedProgram
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    work: Work
    weight_bytes: Bytes
    live_bytes: Bytes


@dataclass(slots=True)
class _Draft:
    """A block's graph while it is being written, and where each old node ended up."""

    graph: Graph = field(default_factory=Graph)
    new: dict[Node, Node] = field(default_factory=dict)
    received: dict[Node, Node] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)


def build_block(chain: Chain, first: int, end: int) -> BlockProgram:
    """Return layers [first, end) of a chain as a program.

    It takes what crosses into `first` and returns what crosses out of ``end - 1``; the last block
    returns the model's outputs. Tensors for later blocks are passed through.
    """
    taken = chain.crossing_into(first)
    is_last = end == len(chain.layers)
    results = chain.outputs if is_last else chain.crossings[end - 1]
    needed = _needed(chain, taken, results)
    draft = _Draft()
    stored = [node for node in chain.weights if node in needed]
    for node in stored:
        draft.new[node] = _placeholder(draft.graph, node.name, node.meta["val"])
    _place_inputs(draft, chain, needed, taken)
    for node in sorted(needed.difference(draft.new), key=chain.order.__getitem__):
        _place(draft, chain, node, taken)
    returned = [draft.new[node] if is_last else _pack(draft, node) for node in results]
    draft.graph.output(tuple(returned))
    work = _work(draft, chain, stored)
    live_bytes = _live_bytes(draft.graph, {draft.new[node] for node in stored})
    _relax_views(draft.graph)
    names = chain.captured.output_names if is_last else tuple(chain.names[node] for node in results)
    return BlockProgram(
        program=_program(draft, chain, stored, taken, returned),
        inputs=tuple(
            tensor_spec(chain.names[node], draft.received[node].meta["val"]) for node in taken
        ),
        outputs=tuple(
            tensor_spec(name, node.meta["val"]) for name, node in zip(names, returned, strict=True)
        ),
        work=work,
        weight_bytes=sum(chain.weights[node].size_bytes for node in stored),
        live_bytes=live_bytes,
    )


def _needed(chain: Chain, taken: Iterable[Node], results: Iterable[Node]) -> set[Node]:
    """Return all nodes that the results need, down to what is taken in."""
    known = set(taken)
    needed: set[Node] = set()
    pending = list(results)
    while pending:
        node = pending.pop()
        if node in needed:
            continue
        needed.add(node)
        if node not in known and node is not chain.batch:
            pending.extend(node.all_input_nodes)
    return needed


def _place_inputs(draft: _Draft, chain: Chain, needed: set[Node], taken: Sequence[Node]) -> None:
    for node in taken:
        value = node.meta["val"]
        sent = value if node.op == "placeholder" else packed(value)
        # torch bends a name that is no identifier; the true one is in the block's description.
        draft.received[node] = _placeholder(draft.graph, chain.names[node], sent)
    for node in taken:
        if node in needed:
            draft.new[node] = _unpack(draft, node)


def _placeholder(graph: Graph, name: str, value: object) -> Node:
    node = graph.placeholder(name)
    node.meta["val"] = value
    return node


def _unpack(draft: _Draft, node: Node) -> Node:
    """Give a tensor that was sent densely the axes it had."""
    received, value = draft.received[node], node.meta["val"]
    axes = None if node.op == "placeholder" else packed_axes(value)
    if axes is None or axes == tuple(range(len(axes))):
        return received
    inverse = [axes.index(axis) for axis in range(len(axes))]
    return _call(draft.graph, ATEN.permute.default, (received, inverse), value)


def _pack(draft: _Draft, node: Node) -> Node:
    """Return the dense form in which a tensor leaves the block."""
    if node in draft.received:
        return draft.received[node]
    value = node.meta["val"]
    axes = packed_axes(value)
    if axes is None:
        dense = _dense(value)
        arguments: dict[str, Argument] = {"memory_format": torch.contiguous_format}
        return _call(draft.graph, ATEN.clone.default, (draft.new[node],), dense, arguments)
    if axes == tuple(range(len(axes))):
        return draft.new[node]
    return _call(draft.graph, ATEN.permute.default, (draft.new[node], list(axes)), packed(value))


def _dense(value: torch.Tensor) -> torch.Tensor:
    return value.clone(memory_format=torch.contiguous_format)


def _call(
    graph: Graph,
    target: torch._ops.OpOverload,
    arguments: tuple[Argument, ...],
    value: object,
    options: dict[str, Argument] | None = None,
) -> Node:
    node = graph.call_function(target, arguments, options)
    node.meta["val"] = value
    return node


def _place(draft: _Draft, chain: Chain, node: Node, taken: Sequence[Node]) -> None:
    if node is chain.batch:
        source, axis = _batch_source(draft, taken)
        value = node.meta["val"]
        draft.new[node] = _call(draft.graph, ATEN.sym_size.int, (source, axis), value)
        return
    copy = draft.graph.node_copy(node, draft.new.__getitem__)
    copy.meta = {"val": node.meta.get("val")}  # no stack traces: they would hold paths
    draft.new[node] = copy
    if node.op == "get_attr":
        name = str(node.target)
        draft.attributes[name] = chain.captured.program.graph_module.get_submodule(name)


def _relax_views(graph: Graph) -> None:
    """Let views copy where memory lies otherwise than it did at export.

    Kernels of another device, or chosen for another batch size, may lay out their results in
    another way; a view that was fitting at export would then fail.
    """
    for view in STRICT_VIEWS:
        for node in graph.find_nodes(op="call_function", target=view):
            node.target = ATEN.reshape.default


def _batch_source(draft: _Draft, taken: Sequence[Node]) -> tuple[Node, int]:
    for node in taken:
        received = draft.received[node]
        axis = batch_axis(received.meta["val"])
        if axis is not None:
            return received, axis
    raise AssertionError("a place is cut only where some tensor tells the batch size")


def _program(
    draft: _Draft,
    chain: Chain,
    stored: Sequence[Node],
    taken: Sequence[Node],
    returned: Sequence[Node],
) -> ExportedProgram:
    draft.graph.lint()
    kept = [_input_spec(draft.new[node], chain.weights[node]) for node in stored]
    given = [
        InputSpec(InputKind.USER_INPUT, TensorArgument(name=draft.received[node].name), None)
        for node in taken
    ]
    made = [
        OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=node.name), None)
        for node in returned
    ]
    state, constants = _storage([chain.weights[node] for node in stored])
    with quiet_export():
        program = ExportedProgram(
            root=dict(draft.attributes),
            graph=draft.graph,
            graph_signature=ExportGraphSignature([*kept, *given], made),
            state_dict=state,
            range_constraints=dict(chain.captured.program.range_constraints),
            module_call_graph=[_call_entry(len(given), made, given)],
            constants=dict(constants),
        )
    program._guards_code = []  # they name the inputs of the whole model
    return program


def _input_spec(placeholder: Node, weight: Weight) -> InputSpec:
    spec = weight.spec
    return InputSpec(spec.kind, TensorArgument(name=placeholder.name), spec.target, spec.persistent)


def _storage(
    weights: Sequence[Weight],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Sort weights into what a program calls state and constants, each with only its own bytes."""
    state: dict[str, torch.Tensor] = {}
    constants: dict[str, torch.Tensor] = {}
    for weight in weights:
        tensor = weight.tensor.detach()
        if tensor.untyped_storage().nbytes() != weight.size_bytes:
            tensor = tensor.clone()
        name = weight.spec.target or ""
        if weight.spec.kind is InputKind.PARAMETER:
            state[name] = torch.nn.Parameter(tensor, requires_grad=False)
        elif weight.spec.kind is InputKind.BUFFER and weight.spec.persistent:
            state[name] = tensor
        else:
            constants[name] = tensor
    return state, constants


def _call_entry(
    count: int, made: Sequence[OutputSpec], given: Sequence[InputSpec]
) -> ModuleCallEntry:
    _, inputs = pytree.tree_flatten(((0,) * count, {}))
    _, outputs = pytree.tree_flatten((0,) * len(made))
    signature = ModuleCallSignature(
        inputs=[spec.arg for spec in given],
        outputs=[spec.arg for spec in made],
        in_spec=inputs,
        out_spec=outputs,
    )
    return ModuleCallEntry(fqn="", signature=signature)


def _work(draft: _Draft, chain: Chain, stored: Sequence[Node]) -> Work:
    sizes = {draft.new[node]: chain.weights[node].size_bytes for node in stored}
    calls = [node for node in draft.graph.nodes if node.op == "call_function"]
    return sum((work_of(node, sizes) for node in calls), start=NO_WORK)


def _live_bytes(graph: Graph, weights: set[Node]) -> Bytes:
    """Return the most bytes of one sample alive at once; views keep alive what they look at."""
    nodes = [node for node in graph.nodes if node not in weights]
    place = {node: index for index, node in enumerate(nodes)}
    last: dict[Node, int] = {}
    for node in nodes:
        owner = _owner(node)
        used = max((place[user] for user in node.users), default=place[node])
        last[owner] = max(last.get(owner, 0), used)
    freed: dict[int, Bytes] = {}
    for owner, used in last.items():
        freed[used] = freed.get(used, 0) + _own_bytes(owner)
    alive = most = 0
    for index, node in enumerate(nodes):
        if node in last:
            alive += _own_bytes(node)
        most = max(most, alive)
        alive -= freed.get(index, 0)
    return most


def _owner(node: Node) -> Node:
    while is_view(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _own_bytes(node: Node) -> Bytes:
    return 0 if node.op == "output" else sample_bytes(node)

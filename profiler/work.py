"""How much work an operator is: operations, bytes, kernels, for one sample.

Knows the operators' shapes from the export's fake tensors. Knows nothing of devices or time.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch.fx import Node

from penstock.domain.units import Bytes

ATEN = torch.ops.aten
Shape: TypeAlias = tuple[int, ...]

# Operators that only say how to look at memory, or compute shapes: no kernel, no traffic.
VIEWS = frozenset(
    {
        ATEN.alias.default,
        ATEN.as_strided.default,
        ATEN.detach.default,
        ATEN.expand.default,
        ATEN.expand_as.default,
        ATEN.narrow.default,
        ATEN.permute.default,
        ATEN.select.int,
        ATEN.slice.Tensor,
        ATEN.split.Tensor,
        ATEN.split_with_sizes.default,
        ATEN.chunk.default,
        ATEN.squeeze.default,
        ATEN.squeeze.dim,
        ATEN.squeeze.dims,
        ATEN.sym_size.int,
        ATEN.t.default,
        ATEN.transpose.int,
        ATEN.unbind.int,
        ATEN.unflatten.int,
        ATEN.unsqueeze.default,
        ATEN.view.default,
        operator.getitem,
    }
)

# Views where their source already lies as asked, copies where it does not.
LAYOUTS = frozenset({ATEN.contiguous.default, ATEN.flatten.using_ints, ATEN.reshape.default})
CASTS = frozenset({ATEN.to.dtype, ATEN.to.dtype_layout, ATEN.type_as.default})

# These read only the rows they are asked for, not the whole table.
GATHERS = frozenset({ATEN.embedding.default, ATEN.index_select.default, ATEN.index.Tensor})

WORK_PER_ELEMENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one operator costs. Flops and activation bytes are for one sample."""

    flops: int
    activation_bytes: Bytes
    weight_bytes: Bytes
    launches: int

    def __add__(self, other: Work) -> Work:
        """Return both together."""
        return Work(
            flops=self.flops + other.flops,
            activation_bytes=self.activation_bytes + other.activation_bytes,
            weight_bytes=self.weight_bytes + other.weight_bytes,
            launches=self.launches + other.launches,
        )


NO_WORK = Work(flops=0, activation_bytes=0, weight_bytes=0, launches=0)


def work_of(node: Node, weights: Mapping[Node, Bytes]) -> Work:
    """Return what a node of a functional graph costs.

    Args:
        node: a call of an operator.
        weights: placeholders that stand for parameters, buffers and constants, with their bytes.
    """
    if is_view(node):
        return NO_WORK
    sources = node.all_input_nodes
    read = sum(sample_bytes(each) for each in sources if each not in weights)
    stored = sum(weights[each] for each in sources if each in weights)
    return Work(
        flops=flops_of(node),
        activation_bytes=read + sample_bytes(node),
        weight_bytes=0 if node.target in GATHERS else stored,
        launches=1,
    )


def is_view(node: Node) -> bool:
    """Say whether a node is a call that starts no kernel."""
    if node.op != "call_function":
        return False
    if node.target in VIEWS or not _tensors(node):
        return True
    if node.target in LAYOUTS:
        return all(each.is_contiguous() for each in _source_tensors(node))
    if node.target in CASTS:
        return _source_tensors(node)[0].dtype == _tensors(node)[0].dtype
    return False


def sample_shape(tensor: torch.Tensor) -> Shape:
    """Return a fake tensor's shape at batch 1."""
    return tuple(sample_size(size) for size in tensor.shape)


def sample_size(size: int | torch.SymInt) -> int:
    """Return a size at batch 1; the batch is the only symbol there is."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, 1)))


def sample_bytes(node: Node) -> Bytes:
    """Return the bytes of a node's tensors for one sample."""
    return sum(tensor_bytes(tensor) for tensor in _tensors(node))


def tensor_bytes(tensor: torch.Tensor) -> Bytes:
    """Return the bytes of a fake tensor for one sample."""
    return math.prod(sample_shape(tensor)) * tensor.element_size()


def flops_of(node: Node) -> int:
    """Return the operations of one sample: a multiplication and an addition count as two."""
    formula = FLOPS.get(node.target)
    if formula is not None:
        return formula(node)
    return WORK_PER_ELEMENT * sum(math.prod(sample_shape(tensor)) for tensor in _tensors(node))


def _tensors(node: Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [each for each in values if isinstance(each, torch.Tensor)]


def _source_tensors(node: Node) -> list[torch.Tensor]:
    return [tensor for source in node.all_input_nodes[:1] for tensor in _tensors(source)]


def _shape(node: Node, argument: int) -> Shape:
    source = node.args[argument]
    if not isinstance(source, Node):
        raise TypeError(f"argument {argument} of {node.name} is not a tensor")
    return sample_shape(source.meta["val"])


def _out(node: Node) -> Shape:
    return sample_shape(_tensors(node)[0])


def _contraction(first: int) -> Callable[[Node], int]:
    """Matrix products whose first factor is argument `first`: its last axis is summed over."""

    def flops(node: Node) -> int:
        return 2 * math.prod(_out(node)) * _shape(node, first)[-1]

    return flops


def _convolution(node: Node) -> int:
    # The kernel's axes after the first: input channels of one group, then the window.
    return 2 * math.prod(_out(node)) * math.prod(_shape(node, 1)[1:])


def _transposed_convolution(node: Node) -> int:
    return 2 * math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])


def _attention(node: Node) -> int:
    query, key, value = (_shape(node, argument) for argument in range(3))
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


FLOPS: Mapping[object, Callable[[Node], int]] = MappingProxyType(
    {
        ATEN.linear.default: _contraction(0),
        ATEN.matmul.default: _contraction(0),
        ATEN.mm.default: _contraction(0),
        ATEN.bmm.default: _contraction(0),
        ATEN.addmm.default: _contraction(1),
        ATEN.baddbmm.default: _contraction(1),
        ATEN.conv1d.default: _convolution,
        ATEN.conv2d.default: _convolution,
        ATEN.conv2d.padding: _convolution,
        ATEN.conv3d.default: _convolution,
        ATEN.convolution.default: _convolution,
        ATEN.conv_transpose2d.input: _transposed_convolution,
        ATEN.scaled_dot_product_attention.default: _attention,
    }
)

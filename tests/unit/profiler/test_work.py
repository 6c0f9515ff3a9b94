"""Work of operators, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from penstock.domain.graph import Layer
from penstock.domain.ids import ModelName
from profiler.capture import capture
from profiler.chain import build_chain


class Of(torch.nn.Module):
    """One operator on one input, with a weight."""

    def __init__(self, kind: str, *shape: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight = torch.nn.Parameter(torch.randn(*shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.kind:
            case "linear":
                return functional.linear(x, self.weight)
            case "convolution":
                return functional.conv2d(x, self.weight, groups=2)
            case "transposed convolution":
                return functional.conv_transpose2d(x, self.weight)
            case "attention":
                return functional.scaled_dot_product_attention(x, x, x) + 0 * self.weight
            case "product":
                return torch.bmm(x, x.transpose(1, 2)) * self.weight
            case _:
                return functional.embedding(x.long(), self.weight)


def layers_of(kind: str, weight: tuple[int, ...], sample: tuple[int, ...]) -> tuple[Layer, ...]:
    captured = capture(Of(kind, *weight), {"x": torch.ones(2, *sample)})
    return build_chain(captured).graph(ModelName("model")).layers


@pytest.mark.parametrize(
    ("kind", "weight", "sample", "operator", "flops"),
    [
        ("linear", (5, 3), (7, 3), "linear", 2 * 7 * 5 * 3),
        ("convolution", (8, 2, 3, 3), (4, 6, 6), "conv2d", 2 * 8 * 4 * 4 * 2 * 9),
        ("transposed convolution", (4, 5, 2, 2), (4, 3, 3), "conv_transpose2d", 2 * 36 * 5 * 4),
        ("attention", (1,), (2, 6, 4), "scaled_dot_product_attention", 2 * 2 * 6 * 6 * 8),
        ("product", (1,), (6, 4), "bmm", 2 * 6 * 6 * 4),
    ],
)
def test_products_count_two_operations_per_term(
    kind: str, weight: tuple[int, ...], sample: tuple[int, ...], operator: str, flops: int
) -> None:
    found = [each for each in layers_of(kind, weight, sample) if operator in each.operator]
    assert [each.flops for each in found] == [flops]


def test_a_linear_layer_moves_input_output_and_weight() -> None:
    (linear,) = layers_of("linear", (5, 3), (7, 3))
    assert linear.activation_bytes == 4 * (7 * 3 + 7 * 5)
    assert linear.weight_bytes == 4 * 5 * 3
    assert linear.launches == 1


def test_views_cost_nothing() -> None:
    layers = layers_of("product", (1,), (6, 4))
    (view,) = [each for each in layers if "transpose" in each.operator]
    assert (view.flops, view.activation_bytes, view.weight_bytes, view.launches) == (0, 0, 0, 0)


def test_a_table_is_not_read_as_a_whole() -> None:
    layers = layers_of("embedding", (1000, 4), (6,))
    (gather,) = [each for each in layers if "embedding" in each.operator]
    assert gather.weight_bytes == 0

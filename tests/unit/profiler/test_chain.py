"""Which tensors cross a cut, and in what form."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from penstock.domain.errors import InvalidGraph
from penstock.domain.ids import ModelName
from profiler.assemble import build_block
from profiler.capture import capture
from profiler.chain import Chain, build_chain, packed_axes

MODEL = ModelName("model")


class Skipping(torch.nn.Module):
    """The first value is used again at the very end; the input as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x.sin()
        return first.cos().exp() + first + x


class Early(torch.nn.Module):
    """Its first output is known long before its last."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first = x.sin()
        return first, first.cos().exp(), x


class Positions(torch.nn.Module):
    """Adds codes that depend on nothing but the weights and the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = self.table(torch.arange(4)).expand(x.shape[0], -1, -1)
        total: torch.Tensor = (x + codes).sin().cos() + codes
        return total


class Masked(torch.nn.Module):
    """A mask that is expanded before it is used twice."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        wide = (mask > 0)[:, None, :].expand(-1, x.shape[1], -1)
        return torch.where(wide, x.sin(), 0.0).cos() * wide


class Turned(torch.nn.Module):
    """A value that lies transposed in memory, and a view that only fits while it does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = x.sin().transpose(1, 2)
        return turned.transpose(1, 2).view(x.shape[0], -1) * 2 + turned.sum((1, 2))[:, None]


class Merged(torch.nn.Module):
    """Batch and heads share an axis in the middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        merged = x.sin().reshape(-1, 3).cos()
        return merged.reshape(x.shape[0], 4, 3).exp()


class Halves(torch.nn.Module):
    """An operator that gives a tuple, whose parts are used apart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.chunk(x.sin(), 2, dim=1)
        return left.cos() + right.exp()


class FusedAttention(torch.nn.Module):
    """Query, key and value as slices of one product, as GPT-2 has them.

    Once such slices have crossed, they lie otherwise, attention may choose another kernel, and that
    one may lay out its result in another way than the view behind it was exported for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fused = torch.nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(self.fused(x).relu_(), 8, dim=2)  # in place: made functional
        query, key, value = (part.view(*x.shape[:-1], 2, 4).transpose(1, 2) for part in parts)
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        result: torch.Tensor = attended.transpose(1, 2).reshape(*x.shape[:-1], 8).contiguous()
        return result


def chain_of(module: torch.nn.Module, **inputs: torch.Tensor) -> Chain:
    torch.manual_seed(0)
    return build_chain(capture(module, inputs or {"x": torch.randn(2, 4, 3)}))


def crossings(chain: Chain) -> list[list[str]]:
    return [[chain.names[node] for node in crossing] for crossing in chain.crossings]


def answered(
    program: torch.export.ExportedProgram, given: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [each.contiguous() for each in program.module()(*given)]


def check_every_cut(module: torch.nn.Module, chain: Chain, *tensors: torch.Tensor) -> None:
    end = len(chain.layers)
    for batch in (1, 2, 5):
        given = [torch.cat([tensor] * batch)[:batch] for tensor in tensors]
        result = module(*given)
        expected = [result] if isinstance(result, torch.Tensor) else list(result)
        for cut in range(1, end):
            first, second = build_block(chain, 0, cut), build_block(chain, cut, end)
            assert first.outputs == second.inputs
            middle = answered(first.program, given)
            found = answered(second.program, [each.clone() for each in middle])
            for left, right in zip(expected, found, strict=True):
                torch.testing.assert_close(right, left)


def test_values_skip_blocks_by_passing_through() -> None:
    chain = chain_of(Skipping())
    assert [layer[0].name for layer in chain.layers] == ["sin", "cos", "exp", "add", "add_1"]
    assert crossings(chain) == [
        ["x", "sin"],
        ["x", "sin", "cos"],
        ["x", "sin", "exp"],
        ["x", "add"],
    ]
    check_every_cut(Skipping(), chain, torch.randn(3, 4, 3))


def test_early_outputs_and_inputs_travel_to_the_end() -> None:
    chain = chain_of(Early())
    assert crossings(chain) == [["x", "sin"], ["x", "sin", "cos"]]
    check_every_cut(Early(), chain, torch.randn(3, 4, 3))
    last = build_block(chain, 2, 3)
    assert [spec.name for spec in last.outputs] == ["output0", "output1", "output2"]


def test_what_depends_on_no_input_is_computed_anew() -> None:
    chain = chain_of(Positions())
    assert crossings(chain) == [["add"], ["sin"], ["cos"]]
    check_every_cut(chain.captured.program.module(), chain, torch.randn(3, 4, 3))
    middle, last = build_block(chain, 1, 2), build_block(chain, 3, 4)
    assert middle.weight_bytes == 0
    assert last.weight_bytes >= 4 * 3 * 4


def test_an_expanded_mask_is_sent_as_it_was() -> None:
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    chain = chain_of(Masked(), x=torch.randn(2, 4, 3), mask=mask)
    sent = {
        name: tuple(node.meta["val"].shape[1:])
        for crossing in chain.crossings
        for node, name in ((node, chain.names[node]) for node in crossing)
    }
    assert all(shape != (4, 3) for name, shape in sent.items() if "expand" in name)
    assert not any("expand" in name for name in sent)
    check_every_cut(Masked(), chain, torch.randn(2, 4, 3), mask)


def test_a_tensor_that_lies_transposed_arrives_transposed() -> None:
    chain = chain_of(Turned())
    check_every_cut(Turned(), chain, torch.randn(3, 4, 3))


def test_slices_of_a_fused_product_may_cross_inside_attention() -> None:
    x = torch.randn(2, 6, 8)
    chain = chain_of(FusedAttention(), x=x)
    with torch.inference_mode():
        check_every_cut(chain.captured.reference, chain, x)


def test_no_cut_where_the_batch_is_merged_with_another_axis() -> None:
    chain = chain_of(Merged())
    for crossing in chain.crossings:
        for node in crossing:
            assert len(node.meta["val"].shape) == 3
    check_every_cut(Merged(), chain, torch.randn(3, 4, 3))


def test_a_tuple_is_unpacked_before_it_crosses() -> None:
    chain = chain_of(Halves())
    assert len(chain.layers) >= 4
    check_every_cut(Halves(), chain, torch.randn(3, 4, 3))


def test_cut_bytes_and_work_are_those_of_one_sample() -> None:
    graph = chain_of(Skipping()).graph(MODEL)
    sample = 4 * 3 * 4
    assert graph.cut_bytes == (2 * sample, 3 * sample, 3 * sample, 2 * sample)
    assert graph.layers[0].operator == "aten.sin.default"
    assert [layer.activation_bytes for layer in graph.layers] == [
        2 * sample,
        2 * sample,
        2 * sample,
        3 * sample,
        3 * sample,
    ]


def test_live_activations_of_a_block_count_what_is_passed_through() -> None:
    chain = chain_of(Skipping())
    sample = 4 * 3 * 4
    assert build_block(chain, 0, 1).live_bytes == 2 * sample  # x stays, its sine is made
    assert build_block(chain, 1, 2).live_bytes == 3 * sample
    assert build_block(chain, 2, 3).live_bytes == 4 * sample  # its source dies only afterwards


def test_a_crossing_tensor_never_takes_the_name_of_an_input() -> None:
    chain = chain_of(Skipping(), sin=torch.randn(2, 4, 3))
    assert crossings(chain)[0] == ["sin", "sin_"] or len(set(crossings(chain)[0])) == 2
    check_every_cut(Skipping(), chain, torch.randn(2, 4, 3))


def test_a_model_that_computes_nothing_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="operators that depend on the inputs"):
        chain_of(torch.nn.Identity(), input=torch.randn(2, 3))


@pytest.mark.parametrize(
    ("tensor", "axes"),
    [
        (torch.zeros(2, 3, 4), (0, 1, 2)),
        (torch.zeros(2, 3, 4).transpose(1, 2), (0, 2, 1)),
        (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), (0, 2, 3, 1)),
        (torch.zeros(2, 1, 4).expand(2, 3, 4), None),
        (torch.zeros(2, 3, 4)[:, ::2], None),
        (torch.zeros(()), ()),
    ],
)
def test_packed_axes_follow_memory(tensor: torch.Tensor, axes: tuple[int, ...] | None) -> None:
    assert packed_axes(tensor) == axes

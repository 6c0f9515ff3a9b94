"""A model cut into blocks answers what it answered whole, wherever it is cut.

Every single cut and random several cuts, through files saved and loaded again. The regular suite
runs small models of the architectures; the full sizes are marked slow.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
import torch

from execution.blocks import Chain, load_program
from penstock.domain.blocks import BlockPartition
from penstock.formats.codec import digest
from penstock.formats.graphs import read_graph
from profiler.capture import capture, capture_file
from profiler.cut import cut_captured, cut_model
from profiler.files import load_partition
from profiler.store import MODEL_FILE, load_block
from profiler.verify import relative_error, resized

Inputs: TypeAlias = Mapping[str, torch.Tensor]
Model: TypeAlias = tuple[torch.nn.Module, Inputs]

BATCHES = (1, 2, 3, 8)
FULL_BATCHES = (1, 3)
TOLERANCE = 1e-5
RANDOM_CUTS = 5


class ResidualCnn(torch.nn.Module):
    """A stem, residual pairs written in place, a skip from the stem to the very end."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, width, 3, padding=1)
        self.first = torch.nn.ModuleList(self.unit(width) for _ in range(depth))
        self.second = torch.nn.ModuleList(self.unit(width) for _ in range(depth))
        self.head = torch.nn.Linear(2 * width, 10)

    @staticmethod
    def unit(width: int) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.BatchNorm2d(width)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = self.stem(image).relu_()
        x = stem
        for first, second in zip(self.first, self.second, strict=True):
            x = (second(first(x).relu_()).add_(x)).relu_()
        pooled = torch.cat([x.mean((2, 3)), stem.amax((2, 3))], dim=1)
        scores: torch.Tensor = self.head(pooled)
        return scores


def residual_cnn() -> Model:
    return ResidualCnn(), {"image": torch.randn(2, 1, 8, 8)}


def resnet(*, small: bool) -> Model:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2]} if small else {}
    model = ResNetForImageClassification(ResNetConfig(**sizes))
    return model, {"pixel_values": torch.randn(2, 3, *([32, 32] if small else [224, 224]))}


def vit(*, small: bool) -> Model:
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(**transformer(small), image_size=side(small, 64)))
    return model, {"pixel_values": torch.randn(2, 3, side(small, 64), side(small, 64))}


def bert(*, small: bool) -> Model:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**transformer(small), vocab_size=200 if small else 30522))
    mask = torch.ones(2, 12 if small else 128, dtype=torch.int64)
    mask[1, -3:] = 0
    return model, {"input_ids": torch.randint(0, 200, mask.shape), "attention_mask": mask}


def segformer(*, small: bool) -> Model:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 16, 32],
        "num_attention_heads": [1, 2, 2, 4],
        "decoder_hidden_size": 16,
    }
    model = SegformerForSemanticSegmentation(SegformerConfig(**(sizes if small else {})))
    return model, {"pixel_values": torch.randn(2, 3, side(small, 64), side(small, 64))}


def transformer(small: bool) -> dict[str, int]:
    if not small:
        return {}
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }


def side(small: bool, size: int) -> int:
    return size if small else 224


FACTORIES: Mapping[str, Callable[..., Model]] = {
    "resnet": resnet,
    "vit": vit,
    "bert": bert,
    "segformer": segformer,
}
# All tests of a model run in one process, where it is captured and cut once.
CASES = [
    pytest.param(name, marks=pytest.mark.xdist_group(f"cutting {name}"))
    for name in ("residual_cnn", *FACTORIES)
]
FULL_CASES = [
    pytest.param(
        f"full {name}", marks=[pytest.mark.slow, pytest.mark.xdist_group(f"cutting full {name}")]
    )
    for name in FACTORIES
]


@dataclass(frozen=True)
class Cut:
    batches: Sequence[int]
    module: torch.nn.Module
    inputs: Inputs
    repository: Path
    directory: Path
    partition: BlockPartition
    blocks: Sequence[torch.nn.Module]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[*CASES, *FULL_CASES])
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    torch.manual_seed(0)
    module, inputs = make(request.param)
    repository = tmp_path_factory.mktemp("models")
    report = cut_captured(capture(module, inputs), "model", "1", repository)
    directory = report.directory
    partition, blocks_digest = load_partition(directory)
    assert (partition, blocks_digest) == (report.partition, report.blocks_digest)
    blocks = [load_block(directory, partition, index) for index in range(len(partition.blocks))]
    batches = FULL_BATCHES if request.param.startswith("full") else BATCHES
    return Cut(batches, module, inputs, repository, directory, partition, blocks)


def make(case: str) -> Model:
    if case == "residual_cnn":
        return residual_cnn()
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FACTORIES[case.rsplit(maxsplit=1)[-1]](small=not case.startswith("full"))


def unsplit(cut: Cut, batch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    inputs = {name: resized(tensor, batch) for name, tensor in cut.inputs.items()}
    with torch.inference_mode():
        result = cut.module(**inputs)
    leaves = [result] if isinstance(result, torch.Tensor) else list(result.values())
    return list(inputs.values()), leaves


def pipelined(
    cut: Cut, boundaries: Sequence[int], tensors: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    for first, end in itertools.pairwise(boundaries):
        stage = Chain(cut.partition.blocks[first:end], cut.blocks[first:end])
        tensors = run(stage, [tensor.clone() for tensor in tensors])
    return tuple(tensors)


def run(module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return tuple(module(*tensors))


def worst(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    return max(relative_error(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.timeout(600)
def test_every_single_cut_gives_the_unsplit_answer(cut: Cut) -> None:
    count = len(cut.blocks)
    assert count > 4
    for batch in cut.batches:
        inputs, expected = unsplit(cut, batch)
        for place in range(1, count):
            found = pipelined(cut, (0, place, count), inputs)
            assert worst(expected, found) <= TOLERANCE, f"cut {place}, batch {batch}"


@pytest.mark.timeout(600)
def test_random_several_cuts_give_the_unsplit_answer(cut: Cut) -> None:
    count, rng = len(cut.blocks), random.Random(7)
    inputs, expected = unsplit(cut, 3)
    for _ in range(RANDOM_CUTS):
        places = sorted(rng.sample(range(1, count), rng.randint(2, min(5, count - 1))))
        assert worst(expected, pipelined(cut, (0, *places, count), inputs)) <= TOLERANCE
    assert worst(expected, pipelined(cut, tuple(range(count + 1)), inputs)) <= TOLERANCE


def test_the_saved_unsplit_model_gives_the_same_answer(cut: Cut) -> None:
    path = cut.directory / MODEL_FILE
    whole = load_program(path.read_bytes(), str(path), torch.device("cpu"))
    for batch in (1, 3):
        inputs, expected = unsplit(cut, batch)
        assert worst(expected, run(whole, inputs)) <= TOLERANCE


def test_tensors_are_as_described(cut: Cut) -> None:
    tensors: Sequence[torch.Tensor] = [resized(each, 3) for each in cut.inputs.values()]
    assert [spec.name for spec in cut.partition.inputs] == list(cut.inputs)
    for block, module in zip(cut.partition.blocks, cut.blocks, strict=True):
        assert [tuple(each.shape) for each in tensors] == [
            tuple(3 if size == -1 else size for size in spec.shape) for spec in block.inputs
        ]
        tensors = run(module, tensors)
    for before, after in zip(cut.partition.blocks, cut.partition.blocks[1:], strict=False):
        assert before.outputs == after.inputs
    assert cut.partition.blocks[0].inputs == cut.partition.inputs
    assert cut.partition.blocks[-1].outputs == cut.partition.outputs


def test_cut_bytes_are_what_one_sample_sends(cut: Cut) -> None:
    tensors: Sequence[torch.Tensor] = [resized(each, 1) for each in cut.inputs.values()]
    for module, expected in zip(cut.blocks, cut.partition.cut_bytes, strict=False):
        tensors = run(module, tensors)
        assert sum(each.numel() * each.element_size() for each in tensors) == expected


def test_blocks_hold_their_own_weights_only(cut: Cut) -> None:
    whole = sum(each.numel() * each.element_size() for each in cut.module.parameters())
    for block in cut.partition.blocks:
        size = (cut.directory / block.file).stat().st_size
        assert size < block.weight_bytes + 500_000
    assert sum(block.weight_bytes for block in cut.partition.blocks) < 1.1 * whole + 10_000


def test_the_graph_accounts_for_the_blocks(cut: Cut) -> None:
    text = (cut.directory / "graph.json").read_text(encoding="utf-8")
    graph = read_graph(text, "graph.json")
    ends = [block.end_layer for block in cut.partition.blocks]
    assert ends[-1] == len(graph.layers)
    assert cut.partition.cut_bytes == tuple(graph.cut_bytes[end - 1] for end in ends[:-1])
    assert sum(layer.flops for layer in graph.layers) <= sum(
        block.flops for block in cut.partition.blocks
    )


def test_a_module_and_its_saved_program_give_equal_files(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module, inputs = residual_cnn()
    partition = cut_model(module, inputs, "model", "1", tmp_path / "one", max_blocks=3)
    captured = capture_file(
        tmp_path / "one" / "model" / "1" / MODEL_FILE, partition_names(partition)
    )
    assert (
        cut_captured(captured, "model", "1", tmp_path / "two", max_blocks=3).partition == partition
    )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert set(digests(tmp_path / "one")) == {
        *(f"block_{index:02d}.pt2" for index in range(3)),
        "blocks.json",
        "graph.json",
        "model.pt2",
    }


def partition_names(partition: BlockPartition) -> list[str]:
    return [spec.name for spec in partition.outputs]


def digests(root: Path) -> dict[str, str]:
    files = [each for each in root.rglob("*.*") if each.is_file()]
    return {each.name: digest(each.read_bytes()) for each in files}


def test_a_cut_into_fewer_blocks_leaves_no_stale_file(tmp_path: Path) -> None:
    module, inputs = ResidualCnn(depth=1), {"image": torch.randn(2, 1, 8, 8)}
    captured = capture(module, inputs)
    cut_captured(captured, "model", "1", tmp_path, max_blocks=4)
    cut_captured(captured, "model", "1", tmp_path, max_blocks=2)
    directory = tmp_path / "model" / "1"
    assert len(list(directory.glob("block_*.pt2"))) == 2
    assert not list(directory.glob("*.part"))

from __future__ import annotations

import json

import pytest

from penstock.domain.blocks import Block, BlockPartition, TensorSpec
from penstock.domain.errors import InvalidGraph
from penstock.domain.graph import Layer, ModelGraph
from penstock.domain.ids import ModelName
from penstock.formats.graphs import read_blocks, read_graph, write_blocks, write_graph

GRAPH = ModelGraph(
    model=ModelName("digits"),
    layers=(
        Layer(name="conv", operator="conv2d", flops=9, activation_bytes=8, weight_bytes=7),
        Layer(
            name="view", operator="view", flops=0, activation_bytes=0, weight_bytes=0, launches=0
        ),
    ),
    cut_bytes=(64,),
)


def a_tensor(name: str) -> TensorSpec:
    return TensorSpec(name=name, datatype="FP32", shape=(-1, 3))


def a_block(index: int, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Block:
    return Block(
        index=index,
        first_layer=index * 2,
        end_layer=index * 2 + 2,
        inputs=tuple(map(a_tensor, inputs)),
        outputs=tuple(map(a_tensor, outputs)),
        flops=1,
        moved_bytes=2,
        launches=3,
        activation_bytes=4,
        weight_bytes=5,
        file=f"block_{index:02d}.pt2",
        sha256="ab" * 32,
    )


BLOCKS = BlockPartition(
    model=ModelName("digits"),
    version="1",
    inputs=(a_tensor("image"),),
    outputs=(a_tensor("logits"),),
    blocks=(a_block(0, ("image",), ("x", "skip")), a_block(1, ("x", "skip"), ("logits",))),
    cut_bytes=(24,),
    band=(0.5, 1.5),
)


def test_writing_and_reading_back_gives_equal_values() -> None:
    assert read_graph(write_graph(GRAPH), "graph.json") == GRAPH
    assert read_blocks(write_blocks(BLOCKS), "blocks.json") == BLOCKS


def changed(text: str, path: str, value: object) -> str:
    content = json.loads(text)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    node = content
    for part in parents:
        node = node[part]
    node[last] = value
    return json.dumps(content)


BAD_GRAPHS: list[tuple[str, object, str, str, str]] = [
    ("schema", "penstock.blocks/1", "schema", "'penstock.graph/1'", "'penstock.blocks/1'"),
    ("layers", [], "layers", "at least one", "an empty list"),
    ("layers.0.name", "view", "layers[1].name", "another name than that of layers[0]", "'view'"),
    ("layers.0.flops", -1, "layers[0].flops", "at least 0", "-1"),
    ("layers.0.flops", 1e9, "layers[0].flops", "an integer", "1000000000.0"),
    ("layers.0.operator", None, "layers[0].operator", "text", "null"),
    ("cut_bytes", [], "cut_bytes", "1 values, one for each cut", "0"),
    ("cut_bytes", [-1], "cut_bytes[0]", "at least 0", "-1"),
]


@pytest.mark.parametrize(("path", "value", "place", "expected", "found"), BAD_GRAPHS)
def test_a_bad_graph_gets_one_clear_line(
    path: str, value: object, place: str, expected: str, found: str
) -> None:
    with pytest.raises(InvalidGraph) as caught:
        read_graph(changed(write_graph(GRAPH), path, value), "graph.json")
    assert caught.value.place == place
    assert expected in caught.value.expected
    assert found in caught.value.found


B = "blocks[1]"
BAD_BLOCKS: list[tuple[str, object, str, str, str]] = [
    ("blocks", [], "blocks", "at least one", "an empty list"),
    ("version", "../1", "version", "a name of letters", "'../1'"),
    ("inputs", [], "inputs", "at least one", "an empty list"),
    ("outputs.0.name", "probabilities", "outputs[0].name", "an output of a block", "'probabil"),
    ("cut_bytes", [1, 2], "cut_bytes", "1 values, one for each cut", "2"),
    ("band", [1.5, 0.5], "band", "0 ≤ low ≤ high", "1.5, 0.5"),
    ("band", [1.5], "band[1]", "a value, which is required", "none"),
    ("band", [1, 2, 3], "band", "at most 2", "a list of 3"),
    ("blocks.1.index", 2, f"{B}.index", "1", "2"),
    ("blocks.1.first_layer", 3, f"{B}.first_layer", "2", "3"),
    ("blocks.1.end_layer", 2, f"{B}.end_layer", "more than first_layer (2)", "2"),
    ("blocks.1.weight_bytes", -5, f"{B}.weight_bytes", "at least 0", "-5"),
    ("blocks.1.file", "../../x.pt2", f"{B}.file", "a name of letters", "'../../x.pt2'"),
    ("blocks.1.file", "block_00.pt2", f"{B}.file", "another name", "'block_00.pt2'"),
    ("blocks.1.sha256", "AB" * 32, f"{B}.sha256", "a SHA-256 of 64 hex digits", "'ABAB"),
    ("blocks.1.inputs.0.name", "y", f"{B}.inputs[0].name", "an output of an earlier", "'y'"),
    ("blocks.1.inputs.0.name", "skip", f"{B}.inputs[1].name", "another name", "'skip'"),
    ("blocks.1.inputs.0.datatype", "FLOAT", f"{B}.inputs[0].datatype", "one of BOOL,", "'FLOAT'"),
    ("blocks.1.inputs.0.shape", [-1, 0], f"{B}.inputs[0].shape[1]", "at least 1, or -1", "0"),
    ("blocks.1.inputs.0.shape", "-1", f"{B}.inputs[0].shape", "a list", "'-1'"),
]


@pytest.mark.parametrize(("path", "value", "place", "expected", "found"), BAD_BLOCKS)
def test_bad_blocks_get_one_clear_line(
    path: str, value: object, place: str, expected: str, found: str
) -> None:
    with pytest.raises(InvalidGraph) as caught:
        read_blocks(changed(write_blocks(BLOCKS), path, value), "blocks.json")
    assert caught.value.place == place
    assert expected in caught.value.expected
    assert found in caught.value.found

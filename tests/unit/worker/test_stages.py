"""Finding a stage in a repository, or saying why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from penstock.domain.errors import StageLoadFailed
from penstock.formats.graphs import read_blocks
from tests.support.repositories import write_partition, write_shapes_model
from worker.stages import StageOrder, open_stage


def an_order(**changes: object) -> StageOrder:
    order = StageOrder(
        model="m", version="1", first_block=0, end_block=2, batch=2, latency_us_by_batch=(1, 2)
    )
    return dataclasses.replace(order, **changes)  # type: ignore[arg-type]


def test_a_stage_takes_its_first_blocks_inputs_and_gives_its_last_ones_outputs(
    tmp_path: Path,
) -> None:
    digest = write_shapes_model(tmp_path, blocks=4)
    stage = open_stage(tmp_path, an_order(first_block=1, end_block=3, blocks_sha256=digest))
    assert [each.index for each in stage.blocks] == [1, 2]
    assert ([each.name for each in stage.inputs], [each.name for each in stage.outputs]) == (
        ["t1"],
        ["t3"],
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "blocks.json: No such file"),
        ({"blocks_sha256": "a" * 64}, "expected sha256 aaaaaaaaaaaa…"),
        ({"end_block": 3}, "blocks 0-2: the model has blocks 0-1"),
        ({"first_block": 2}, "the model has blocks 0-1"),
        ({"batch": 0}, "a batch of 0 cannot be run"),
    ],
)
def test_a_stage_that_is_not_there_is_told(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_shapes_model(tmp_path)
    with pytest.raises(StageLoadFailed, match=message):
        open_stage(tmp_path, an_order(**changes))


def test_a_bad_file_is_told(tmp_path: Path) -> None:
    write_shapes_model(tmp_path)
    (tmp_path / "m/1/blocks.json").write_bytes(b"\xff{}")
    with pytest.raises(StageLoadFailed, match=r"blocks\.json"):
        open_stage(tmp_path, an_order())


def test_a_tensor_that_is_not_passed_on_is_told(tmp_path: Path) -> None:
    write_shapes_model(tmp_path, blocks=3)
    path = tmp_path / "m/1/blocks.json"
    partition = read_blocks(path.read_text(), str(path))
    first, second, third = partition.blocks
    third = dataclasses.replace(third, inputs=first.outputs)
    write_partition(tmp_path, dataclasses.replace(partition, blocks=(first, second, third)))
    with pytest.raises(StageLoadFailed, match="block 2 needs t1, which block 1 does not give"):
        open_stage(tmp_path, an_order(end_block=3))

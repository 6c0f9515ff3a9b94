"""What every executor promises, on the same stage: the blocks of a small exported model."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.domain.blocks import BlockPartition
from penstock.domain.errors import InvalidInput, StageLoadFailed, UnknownName
from penstock.domain.execution import ExecutionOptions
from penstock.domain.tensors import Buffer, Tensor
from penstock.formats.graphs import write_blocks
from tests.support.repositories import unsplit, write_tiny_model
from worker.executors import EXECUTORS, new_executor
from worker.executors.base import Executor
from worker.stages import Stage, StageOrder, open_stage

ROOT = Path(__file__).parents[2]
BATCH = 4
WIDTH = 3
LATENCIES_US = (20_000, 25_000, 30_000, 35_000)
REAL = ("cpu", "cuda", "emulated")
EMULATED = ("emulated", "emulated-shapes")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_tiny_model(path, blocks=3, width=WIDTH)
    return path


@pytest.fixture(scope="module")
def partition(repository: Path) -> BlockPartition:
    from penstock.formats.graphs import read_blocks

    return read_blocks((repository / "m/1/blocks.json").read_text(), "blocks.json")


def an_order(**changes: object) -> StageOrder:
    order = StageOrder(
        model="m",
        version="1",
        first_block=0,
        end_block=3,
        batch=BATCH,
        latency_us_by_batch=LATENCIES_US,
        execution=ExecutionOptions(compile="off"),
    )
    return dataclasses.replace(order, **changes)  # type: ignore[arg-type]


@pytest.fixture
def stage(repository: Path) -> Stage:
    return open_stage(repository, an_order())


def rows(count: int) -> tuple[Tensor, ...]:
    data = struct.pack(f"<{count * WIDTH}f", *(0.25 * each for each in range(count * WIDTH)))
    # Foreign alignment, and memory that must not be written to: as it comes from a frame.
    frame = memoryview(b"x" + data)[1:]
    return (Tensor("t0", "FP32", (count, WIDTH), frame),)


def floats(data: Buffer) -> list[float]:
    return [each for (each,) in struct.iter_unpack("<f", data)]


def skip_without_device(name: str) -> None:
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def loaded(name: str, stage: Stage) -> Executor:
    skip_without_device(name)
    executor = new_executor(name)
    executor.load(stage)
    return executor


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize("samples", [1, BATCH])
def test_outputs_have_the_planned_names_types_and_shapes(
    name: str, samples: int, stage: Stage
) -> None:
    executor = loaded(name, stage)
    (output,) = executor.run(rows(samples), samples).tensors
    executor.close()
    assert (output.name, output.datatype, output.shape) == ("t3", "FP32", (samples, WIDTH))
    assert len(memoryview(output.data).cast("B")) == samples * WIDTH * 4
    assert memoryview(output.data).nbytes == len(output.data)


@pytest.mark.parametrize("name", REAL)
def test_answers_are_those_of_the_unsplit_model(
    name: str, stage: Stage, partition: BlockPartition
) -> None:
    executor = loaded(name, stage)
    for samples in (1, 3, BATCH):
        inputs = rows(samples)
        expected = unsplit(stage.directory, partition, bytes(inputs[0].data), samples)
        found = floats(executor.run(inputs, samples).tensors[0].data)
        assert found == pytest.approx(floats(expected), rel=1e-5, abs=1e-6)
        if name != "cuda":
            assert found == floats(expected)


@pytest.mark.parametrize("name", REAL)
def test_two_stages_make_what_one_makes(name: str, repository: Path, stage: Stage) -> None:
    first = loaded(name, open_stage(repository, an_order(end_block=1)))
    second = loaded(name, open_stage(repository, an_order(first_block=1)))
    whole = loaded(name, stage)
    halfway = first.run(rows(2), 2).tensors
    assert [each.name for each in halfway] == ["t1"]
    found = floats(second.run(halfway, 2).tensors[0].data)
    expected = floats(whole.run(rows(2), 2).tensors[0].data)
    # On a GPU each may have another batch size captured, which may choose other kernels.
    assert found == (pytest.approx(expected, rel=1e-5, abs=1e-6) if name == "cuda" else expected)


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.parametrize(
    ("tensors", "samples", "found"),
    [
        (rows(2), 1, r"\[2, 3\]"),
        ((Tensor("other", "FP32", (1, WIDTH), bytes(12)),), 1, "other"),
        ((Tensor("t0", "FP64", (1, WIDTH), bytes(24)),), 1, "FP64"),
        ((Tensor("t0", "FP32", (1, WIDTH), bytes(11)),), 1, "11"),
        ((), 1, "none"),
        ((*rows(1), *rows(1)), 1, "t0, t0"),
    ],
)
def test_a_wrong_batch_fails_alone(
    name: str, tensors: tuple[Tensor, ...], samples: int, found: str, stage: Stage
) -> None:
    executor = loaded(name, stage)
    with pytest.raises(InvalidInput, match=found):
        executor.run(tensors, samples)
    assert executor.run(rows(1), 1).tensors[0].shape == (1, WIDTH)


@pytest.mark.parametrize("name", EMULATED)
def test_answers_are_held_until_the_planned_latency(name: str, stage: Stage) -> None:
    executor = loaded(name, stage)
    for samples in (1, BATCH):
        began = time.monotonic()
        result = executor.run(rows(samples), samples)
        took_us = (time.monotonic() - began) * 1e6
        assert took_us >= LATENCIES_US[samples - 1]
        assert result.overrun_us == 0


@pytest.mark.parametrize("name", EMULATED)
def test_a_computation_slower_than_the_device_is_reported(name: str, repository: Path) -> None:
    stage = open_stage(repository, an_order(latency_us_by_batch=(1, 0, 0, 0)))
    assert loaded(name, stage).run(rows(BATCH), BATCH).overrun_us > 0


@pytest.mark.parametrize("name", EMULATED)
def test_emulation_needs_a_latency_for_every_batch(name: str, repository: Path) -> None:
    stage = open_stage(repository, an_order(latency_us_by_batch=(1, 1)))
    with pytest.raises(StageLoadFailed, match="up to 4, the plan has 2"):
        new_executor(name).load(stage)


@pytest.mark.parametrize("name", REAL)
def test_a_block_that_was_changed_is_not_loaded(
    name: str, tmp_path: Path, partition: BlockPartition
) -> None:
    other = write_tiny_model(tmp_path, blocks=3, width=WIDTH)
    blocks = tuple(dataclasses.replace(each, sha256="e" * 64) for each in other.blocks)
    changed = dataclasses.replace(partition, blocks=blocks)
    (tmp_path / "m/1/blocks.json").write_text(write_blocks(changed))
    skip_without_device(name)
    with pytest.raises(StageLoadFailed, match=r"block_00\.pt2: expected sha256 eeeeeeeeeeee…"):
        new_executor(name).load(open_stage(tmp_path, an_order()))


@pytest.mark.parametrize("name", REAL)
def test_a_missing_block_is_named(name: str, tmp_path: Path) -> None:
    write_tiny_model(tmp_path, blocks=3, width=WIDTH)
    (tmp_path / "m/1/block_01.pt2").unlink()
    skip_without_device(name)
    with pytest.raises(StageLoadFailed, match=r"block_01\.pt2: No such file"):
        new_executor(name).load(open_stage(tmp_path, an_order()))


def test_a_block_that_torch_cannot_read_is_named(tmp_path: Path) -> None:
    import hashlib

    partition = write_tiny_model(tmp_path, blocks=1, width=WIDTH)
    junk = b"not a program"
    (tmp_path / "m/1/block_00.pt2").write_bytes(junk)
    block = dataclasses.replace(partition.blocks[0], sha256=hashlib.sha256(junk).hexdigest())
    changed = dataclasses.replace(partition, blocks=(block,))
    (tmp_path / "m/1/blocks.json").write_text(write_blocks(changed))
    with pytest.raises(StageLoadFailed, match=r"block_00\.pt2: "):
        new_executor("cpu").load(open_stage(tmp_path, an_order(end_block=1)))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="known: cpu, cuda, emulated, emulated-shapes"):
        new_executor("tpu")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "worker.executors.cpu", None)
    with pytest.raises(StageLoadFailed, match=r"executor cpu needs worker\.executors\.cpu, which"):
        new_executor("cpu")


def test_shapes_and_the_supervisor_need_no_torch() -> None:
    code = (
        "import sys, worker.supervisor, worker.cli, worker.instance\n"
        "from worker.executors import new_executor\n"
        "new_executor('emulated-shapes')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_cuda_says_that_there_is_none(stage: Stage) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(StageLoadFailed, match="no CUDA device is visible"):
        new_executor("cuda").load(stage)

"""The CUDA executor on a real device; skipped without one. Logic alone: `test_cuda_stage.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penstock.domain.errors import InvalidInput, StageLoadFailed
from penstock.domain.execution import ExecutionOptions
from tests.unit.worker.models import (
    BATCH,
    Waiting,
    a_stage,
    as_input,
    as_tensor,
    images,
    scores_of,
    write_model,
)
from worker.executors.accuracy import difference
from worker.executors.cuda import CudaExecutor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_model(path)
    return path


@pytest.fixture
def executor() -> Iterator[CudaExecutor]:
    executor = CudaExecutor()
    yield executor
    executor.close()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def answer(executor: CudaExecutor, rows: torch.Tensor) -> torch.Tensor:
    (output,) = executor.run(as_input(rows), len(rows)).tensors
    return as_tensor(output)


def eager(**options: object) -> ExecutionOptions:
    return ExecutionOptions(compile="off", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_graphs_answer_within_the_stated_error(
    precision: str, memory_format: str, repository: Path, executor: CudaExecutor
) -> None:
    options = eager(precision=precision, memory_format=memory_format)
    how = executor.load(a_stage(repository, options))
    assert (how.compiled, how.launched, how.remark) == ("eager", "graphs", "")
    for rows in (1, 3, BATCH, 2):
        found = answer(executor, images(rows, seed=rows))
        expected = scores_of(repository, images(rows, seed=rows))
        assert difference([found], [expected]).largest <= options.error_limit


def test_compiled_graphs_answer_within_the_stated_error(
    repository: Path, executor: CudaExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    options = ExecutionOptions(precision="fp16", memory_format="channels_last")
    how = executor.load(a_stage(repository, options))
    assert (how.compiled, how.launched, how.remark) == ("inductor", "graphs", "")
    assert 0 < how.max_error <= options.error_limit
    found = answer(executor, images(3))
    assert difference([found], [scores_of(repository, images(3))]).largest <= options.error_limit


def test_smaller_sizes_are_captured_when_it_is_quiet(
    repository: Path, executor: CudaExecutor
) -> None:
    executor.load(a_stage(repository, eager()))
    assert executor._loaded is not None
    book = executor._loaded.book
    until_s = time.monotonic() + LIMIT_S
    while book.next_wanted() is not None and time.monotonic() < until_s:
        time.sleep(0.02)
    assert {1, 2, BATCH} <= set(book.built)
    for rows in (1, 2, 3):
        found = answer(executor, images(rows))
        assert difference([found], [scores_of(repository, images(rows))]).largest < 1e-4


def test_batches_on_their_way_together_do_not_mix(repository: Path, executor: CudaExecutor) -> None:
    executor.load(a_stage(repository, eager()))
    rows = [images(1 + number % BATCH, seed=number) for number in range(24)]
    flights = [executor.copy_in(as_input(each), len(each)) for each in rows]
    for flight in flights:
        flight.launch()
    for flight, each in zip(flights, rows, strict=True):
        found = as_tensor(flight.result().tensors[0])
        assert difference([found], [scores_of(repository, each)]).largest < 1e-4


def test_a_wrong_batch_fails_alone(repository: Path, executor: CudaExecutor) -> None:
    executor.load(a_stage(repository, eager()))
    with pytest.raises(InvalidInput):
        executor.run(as_input(images(2)), 1)
    assert answer(executor, images(1)).shape == (1, 5)


def test_a_model_that_cannot_be_captured_is_launched_plainly(
    tmp_path: Path, executor: CudaExecutor
) -> None:
    write_model(tmp_path, Waiting())
    how = executor.load(a_stage(tmp_path, eager()))
    assert how.launched == "plain"
    assert how.remark.startswith("not captured: ")
    for rows in (1, 3, BATCH):
        found = answer(executor, images(rows))
        assert difference([found], [scores_of(tmp_path, images(rows))]).largest < 1e-4


def test_too_little_memory_is_told_and_the_next_stage_loads(
    repository: Path, executor: CudaExecutor
) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-9)
    try:
        with pytest.raises(StageLoadFailed, match=r"CUDA out of memory: it needs about \d+ bytes"):
            executor.load(a_stage(repository, eager()))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    executor.load(a_stage(repository, eager()))
    assert answer(executor, images(2)).shape == (2, 5)


def test_a_given_stream_is_computed_on(repository: Path) -> None:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    executor = CudaExecutor(stream.cuda_stream)
    how = executor.load(a_stage(repository, eager()))
    assert how.launched == "graphs"
    found = answer(executor, images(3))
    assert difference([found], [scores_of(repository, images(3))]).largest < 1e-4
    executor.close()

"""The way of batches through a CUDA stage, with torch's device functions played by the host.

What this cannot show (that copies overlap, that graphs compute the same) `test_cuda.py` does, on a
device.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from execution.cuda_graphs import Built, plain
from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computation, ExecutionOptions
from tests.support.played_cuda import HOST, play, played_stage, played_streams
from tests.unit.worker.models import BATCH, a_stage, as_input, as_tensor, images, write_model
from worker.executors import cuda_stage
from worker.executors.cuda import CudaExecutor
from worker.executors.cuda_stage import CudaStage, Streams
from worker.executors.memory import need_of, out_of_memory
from worker.executors.torch_stage import TorchStage


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_model(path)
    return path


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    play(monkeypatch.setattr)
    yield
    torch.backends.cudnn.allow_tf32 = True


def a_cuda_stage(
    repository: Path, monkeypatch: pytest.MonkeyPatch, options: ExecutionOptions
) -> tuple[CudaStage, Computation]:
    loaded = played_stage(a_stage(repository, options))
    return loaded, loaded.start()


def test_a_batch_is_padded_and_cut_and_the_one_before_is_kept(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, how = a_cuda_stage(repository, monkeypatch, ExecutionOptions())
    try:
        assert how.launched == "graphs"
        first = loaded.take_off([images(3, seed=1)], 3)
        second = loaded.take_off([images(2, seed=2)], 2)
        first.launch()
        second.launch()  # writes over the outputs of the graph, not over those of the first batch
        assert (first.size, second.size) == (BATCH, BATCH)
        for flight, rows in ((first, images(3, seed=1)), (second, images(2, seed=2))):
            result = flight.result()
            assert result.compute_us == 250
            (scores,) = loaded.stage.run([rows])
            assert torch.allclose(as_tensor(result.tensors[0]), scores, atol=1e-6)
    finally:
        loaded.close()


def test_a_launch_waits_for_the_batch_before_it_only(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, _ = a_cuda_stage(repository, monkeypatch, ExecutionOptions())
    first, second = (loaded.take_off([images(1)], 1) for _ in range(2))
    first.launch()
    assert first.ended.waited == 0  # type: ignore[attr-defined]
    second.launch()
    assert (first.ended.waited, second.ended.waited) == (1, 0)  # type: ignore[attr-defined]
    loaded.close()


def test_sizes_that_padding_costs_much_are_built_and_then_used(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, _ = a_cuda_stage(repository, monkeypatch, ExecutionOptions())
    assert loaded.book.built == (BATCH,)
    assert loaded.book.next_wanted() == 2
    loaded._build(2)
    loaded._build(1)
    for samples, size in ((1, 1), (2, 2), (3, BATCH)):
        flight = loaded.take_off([images(samples)], samples)
        flight.launch()
        assert flight.size == size
    loaded.close()


def test_what_cannot_be_captured_is_launched_plainly(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Built:
        raise RuntimeError("operation not permitted when stream is capturing")

    stage = TorchStage(a_stage(repository, ExecutionOptions()), HOST, compile_by_default=False)
    monkeypatch.setattr(cuda_stage, "captured", refuse)
    loaded = CudaStage(stage, played_streams())
    how = loaded.start()
    assert how.launched == "plain"
    assert "not captured: RuntimeError: operation not permitted" in how.remark
    assert how.remark in caplog.text
    flight = loaded.take_off([images(3)], 3)
    flight.launch()
    assert flight.size == 3  # as it comes: nothing has to be built ahead
    (scores,) = loaded.stage.run([images(3)])
    assert torch.allclose(as_tensor(flight.result().tensors[0]), scores, atol=1e-6)
    loaded.close()


def test_capture_can_be_switched_off(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, how = a_cuda_stage(repository, monkeypatch, ExecutionOptions(capture=False))
    assert (how.launched, how.remark) == ("plain", "")
    loaded.close()


def test_a_smaller_size_that_cannot_be_captured_leaves_the_graphs(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, _ = a_cuda_stage(repository, monkeypatch, ExecutionOptions())

    def refuse(*_: object) -> Built:
        raise RuntimeError("no")

    monkeypatch.setattr(cuda_stage, "captured", refuse)
    with pytest.raises(RuntimeError):
        loaded._build(2)
    assert loaded.book.built == (BATCH,)
    loaded.close()


def test_too_little_memory_is_told_with_what_it_takes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Streams:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000, 2_000))
    monkeypatch.setattr(Streams, "on", full)
    executor = CudaExecutor()
    with pytest.raises(StageLoadFailed) as caught:
        executor.load(a_stage(repository, ExecutionOptions(compile="off")))
    expected = 1 + BATCH + need_of(a_stage(repository, ExecutionOptions())).workspace
    assert f"it needs about {expected} bytes" in str(caught.value)
    assert "weights 1, activations at batch 4 4," in str(caught.value)
    assert "1000 of 2000 bytes were free" in str(caught.value)
    executor.close()
    with pytest.raises(StageLoadFailed, match="no stage is loaded"):
        executor.run(as_input(images(1)), 1)


def test_half_precision_needs_half(repository: Path) -> None:
    stage = a_stage(repository, ExecutionOptions(precision="fp16"), batch=8)
    need = need_of(stage)
    assert (need.weights, need.activations) == (0, 4)
    whole = need_of(a_stage(repository, ExecutionOptions(), batch=8))
    assert (whole.weights, whole.activations) == (1, 8)
    assert str(whole.total) in out_of_memory(stage, whole, 0, 0)


def test_a_plain_size_runs_on_its_buffers() -> None:
    built = plain(lambda buffers: [buffers[0] + 1], [torch.zeros(2)])
    assert built.run()[0].tolist() == [1, 1]

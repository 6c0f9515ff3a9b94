"""PyTorch on the host's processor."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from worker.executors.base import StageResult
from worker.executors.idle import COMPILING_QUIET_S, IdleBuilder
from worker.executors.padding import Padding
from worker.executors.sizes import SizeBook
from worker.executors.tensors import to_torch
from worker.executors.torch_stage import TorchStage
from worker.stages import Stage

_HOST = torch.device("cpu")
_NS_PER_US = 1_000


class CpuExecutor:
    """Runs exported blocks: any batch size as it comes, or, compiled, the sizes it has built.

    Args:
        threads: for the operators of one batch. One by default: instances share the host, and
            more threads than cores make every batch slower.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._loaded: _Loaded | None = None

    def load(self, stage: Stage) -> Computation:
        """Load and warm up.

        Raises:
            StageLoadFailed: a block cannot be read, does not run, or is too inexact.
        """
        torch.set_num_threads(self._threads)
        self._loaded = _Loaded(TorchStage(stage, _HOST, compile_by_default=False))
        return self._loaded.start()

    def run(
        self,
        tensors: Sequence[Tensor],
        samples: int,
        *,
        queued: bool = False,  # noqa: ARG002 - only emulation asks
    ) -> StageResult:
        """Compute one batch."""
        if self._loaded is None:
            raise StageLoadFailed("no stage is loaded")
        stage = self._loaded.stage
        inputs = [to_torch(each) for each in stage.arrange(tensors, samples)]
        return StageResult(stage.named(self._loaded.compute(inputs, samples)))

    def close(self) -> None:
        """Forget the stage."""
        if self._loaded is not None:
            self._loaded.builder.stop()
        self._loaded = None


class _Loaded:
    """A stage, and the batch sizes it is compiled for."""

    def __init__(self, stage: TorchStage) -> None:
        self.stage = stage
        self._padding = Padding(stage.stage.inputs, stage.stage.outputs)
        self._book = SizeBook(stage.stage.batch)
        self.builder = IdleBuilder(
            stage.stage.name, self._book, self._build, quiet_s=COMPILING_QUIET_S
        )

    def start(self) -> Computation:
        """Run the sizes that have to be there before a batch comes.

        Raises:
            StageLoadFailed: one does not run, or its outputs are too inexact.
        """
        largest = self.stage.stage.batch
        self.stage.first_run(self._padding.buffers(largest, _HOST), largest)
        self._book.add(largest)
        if not self.stage.is_compiled:
            for samples in range(1, largest):
                self.stage.first_run(self._padding.buffers(samples, _HOST), samples)
        result = self.stage.computation(self.stage.error_of(self.compute))
        if self.stage.is_compiled:
            self.builder.start()
        return result

    def compute(self, inputs: Sequence[torch.Tensor], samples: int) -> Sequence[torch.Tensor]:
        """Return outputs; a compiled stage runs the quickest size that it is compiled for."""
        if not self.stage.is_compiled:
            return self.stage.run(inputs)
        size = self._book.choose(samples)
        if size != samples:
            buffers = self._padding.buffers(size, _HOST)
            self._padding.fill(buffers, inputs, samples)
            inputs = buffers
        began_ns = time.perf_counter_ns()
        outputs = self.stage.run(inputs)
        self._book.measured(size, (time.perf_counter_ns() - began_ns) / _NS_PER_US)
        self.builder.batch(samples, size)
        return self._padding.cut(outputs, samples)

    def _build(self, size: int) -> None:
        buffers = self._padding.buffers(size, _HOST)
        self.stage.run(buffers)
        began_ns = time.perf_counter_ns()
        self.stage.run(buffers)
        self._book.add(size, (time.perf_counter_ns() - began_ns) / _NS_PER_US)

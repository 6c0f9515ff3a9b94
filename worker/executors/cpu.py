"""PyTorch on the host's processor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from penstock.domain.errors import StageLoadFailed
from penstock.domain.tensors import Tensor
from worker.executors.base import StageResult
from worker.executors.torch_stage import TorchStage
from worker.stages import Stage


class CpuExecutor:
    """Runs exported blocks.

    Args:
        threads: for the operators of one batch. One by default: instances share the host, and
            more threads than cores make every batch slower.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._stage: TorchStage | None = None

    def load(self, stage: Stage) -> None:
        """Load and warm up.

        Raises:
            StageLoadFailed: a block cannot be read or does not run.
        """
        torch.set_num_threads(self._threads)
        self._stage = TorchStage(stage, torch.device("cpu"))
        self._stage.warm_up()

    def run(
        self,
        tensors: Sequence[Tensor],
        samples: int,
        *,
        queued: bool = False,  # noqa: ARG002 - only emulation asks
    ) -> StageResult:
        """Compute one batch."""
        if self._stage is None:
            raise StageLoadFailed("no stage is loaded")
        inputs = self._stage.arrange(tensors, samples)
        return StageResult(self._stage.named(self._stage.run(inputs)))

    def close(self) -> None:
        """Forget the stage."""
        self._stage = None

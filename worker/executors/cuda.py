"""PyTorch on a CUDA device: a stream of its own, pinned host memory on both sides.

The process sees one device only (the supervisor sets ``CUDA_VISIBLE_DEVICES``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from penstock.domain.errors import StageLoadFailed
from penstock.domain.tensors import Tensor
from worker.executors.base import StageResult
from worker.executors.torch_stage import TorchStage
from worker.stages import Stage


class CudaExecutor:
    """Runs exported blocks on the first visible device."""

    def __init__(self) -> None:
        self._stage: TorchStage | None = None
        self._stream: torch.cuda.Stream | None = None

    def load(self, stage: Stage) -> None:
        """Load and warm up.

        Raises:
            StageLoadFailed: there is no device, or a block cannot be read or does not run.
        """
        if not torch.cuda.is_available():
            raise StageLoadFailed(f"{stage.name}: no CUDA device is visible to this process")
        device = torch.device("cuda", 0)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            self._stage = TorchStage(stage, device)
            self._stage.warm_up()
        self._stream.synchronize()

    def run(
        self,
        tensors: Sequence[Tensor],
        samples: int,
        *,
        queued: bool = False,  # noqa: ARG002 - only emulation asks
    ) -> StageResult:
        """Compute one batch; returns when its outputs are in host memory."""
        if self._stage is None or self._stream is None:
            raise StageLoadFailed("no stage is loaded")
        inputs = [each.pin_memory() for each in self._stage.arrange(tensors, samples)]
        with torch.cuda.stream(self._stream):
            outputs = [_to_host(each) for each in self._stage.run(inputs)]
        self._stream.synchronize()
        return StageResult(self._stage.named(outputs))

    def close(self) -> None:
        """Forget the stage and give its memory back."""
        self._stage = None
        torch.cuda.empty_cache()


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Start the copy into pinned memory; done when the stream is."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)

"""PyTorch on a CUDA device: replayed graphs, copies on streams of their own.

The process sees one device only (the supervisor sets ``CUDA_VISIBLE_DEVICES``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from worker.executors.base import StageResult
from worker.executors.cuda_stage import CudaFlight, CudaStage, Streams
from worker.executors.memory import need_of, out_of_memory
from worker.executors.tensors import to_torch
from worker.executors.torch_stage import TorchStage
from worker.stages import Stage


class CudaExecutor:
    """Runs exported blocks on the first visible device, several batches on their way at once.

    Args:
        stream: handle of the stream to compute on, which keeps to a share of the device; 0: one
            of its own.
    """

    def __init__(self, stream: int = 0) -> None:
        self._stream = stream
        self._loaded: CudaStage | None = None

    def load(self, stage: Stage) -> Computation:
        """Load, compile, and capture the planned batch size.

        Raises:
            StageLoadFailed: there is no device, a block cannot be read or does not run, memory
                is short, or the outputs are too inexact.
        """
        if not torch.cuda.is_available():
            raise StageLoadFailed(f"{stage.name}: no CUDA device is visible to this process")
        device = torch.device("cuda", 0)
        try:
            streams = Streams.on(device, self._stream)
            with torch.cuda.stream(streams.compute):
                on_device = TorchStage(stage, device, compile_by_default=True)
            self._loaded = CudaStage(on_device, streams)
            return self._loaded.start()
        except torch.OutOfMemoryError as error:
            free, total = torch.cuda.mem_get_info(device)
            raise StageLoadFailed(out_of_memory(stage, need_of(stage), free, total)) from error

    def copy_in(self, tensors: Sequence[Tensor], samples: int) -> CudaFlight:
        """Start copying a batch to the device.

        Raises:
            InvalidInput: the tensors do not fit the stage.
        """
        if self._loaded is None:
            raise StageLoadFailed("no stage is loaded")
        arranged = self._loaded.stage.arrange(tensors, samples)
        sources = [each if each.pieces else to_torch(each, pinned=True) for each in arranged]
        return self._loaded.take_off(sources, samples)

    def run(
        self,
        tensors: Sequence[Tensor],
        samples: int,
        *,
        queued: bool = False,  # noqa: ARG002 - only emulation asks
    ) -> StageResult:
        """Compute one batch; returns when its outputs are in host memory."""
        flight = self.copy_in(tensors, samples)
        flight.launch()
        return flight.result()

    def close(self) -> None:
        """Forget the stage and give its memory back; the stream may go afterwards."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

"""Torch's device functions played by the host: work is done as soon as it is queued."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch

from execution.cuda_graphs import Built, Run
from penstock.domain.execution import Computation
from worker.executors import cuda_stage, tensors
from worker.executors.cuda import CudaExecutor
from worker.executors.cuda_stage import CudaStage, Streams
from worker.executors.torch_stage import TorchStage
from worker.stages import Stage

HOST = torch.device("cpu")
_NEVER_S = 1e6


class PlayedStream:
    cuda_stream = 0  # the handle of a stream on which a played driver works at once, too

    def wait_event(self, event: PlayedEvent) -> None:
        assert event.recorded

    def synchronize(self) -> None:
        pass


class PlayedEvent:
    def __init__(self) -> None:
        self.recorded = False
        self.waited = 0

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded
        self.waited += 1

    def elapsed_time(self, other: PlayedEvent) -> float:
        assert self.recorded
        assert other.recorded
        return 0.25


def played_streams() -> Streams:
    return Streams(PlayedStream(), PlayedStream(), PlayedStream())  # type: ignore[arg-type]


def played_stage(stage: Stage) -> CudaStage:
    return CudaStage(TorchStage(stage, HOST, compile_by_default=False), played_streams())


def play(patch: Callable[[object, str, object], None]) -> None:
    """Let this process have a device.

    Args:
        patch: sets an attribute.
    """
    patch(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    patch(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    patch(torch.cuda, "empty_cache", lambda: None)
    patch(cuda_stage, "_new_event", PlayedEvent)
    patch(cuda_stage, "QUIET_S", _NEVER_S)  # sizes are built when a test says so
    patch(cuda_stage, "captured", static_outputs)
    for module in (cuda_stage, tensors):
        patch(module, "host_empty", lambda shape, dtype: torch.empty(shape, dtype=dtype))


def play_executor(patch: Callable[[object, str, object], None]) -> None:
    """Let the CUDA executor load stages onto the device that `play` has made."""

    def load(executor: CudaExecutor, stage: Stage) -> Computation:
        executor._loaded = played_stage(stage)
        return executor._loaded.start()

    patch(CudaExecutor, "load", load)


def static_outputs(run: Run, buffers: Sequence[torch.Tensor], *_: object) -> Built:
    """Play a graph: its outputs lie where they lay before, and each run writes over them."""
    outputs = [each.clone() for each in run(buffers)]

    def replay() -> Sequence[torch.Tensor]:
        for output, new in zip(outputs, run(buffers), strict=True):
            output.copy_(new)
        return outputs

    return Built(buffers, replay)

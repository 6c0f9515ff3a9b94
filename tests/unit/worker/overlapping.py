"""An executor that overlaps its batches, whose device computes when a test lets it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from penstock.domain.errors import InvalidInput
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from worker.executors.base import Handover, StageResult
from worker.stages import Stage

LIMIT_S = 5


class Device:
    """An executor whose device computes a batch when it is let go; says what it was asked for.

    As a real one, it takes a batch when the one before it is computed.
    """

    def __init__(self) -> None:
        self.copied: list[int] = []
        self.computed = [threading.Event() for _ in range(4)]
        self.launched: list[int] = []

    def load(self, stage: Stage) -> Computation:
        raise NotImplementedError

    def run(self, tensors: Sequence[Tensor], samples: int, *, queued: bool = False) -> StageResult:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def copy_in(self, tensors: Sequence[Tensor], samples: int) -> Batch:
        if samples == 0:
            raise InvalidInput("batch", "samples", "at least 1", "0")
        self.copied.append(samples)
        return Batch(self, len(self.copied) - 1, tuple(tensors))


class Batch:
    def __init__(self, device: Device, number: int, tensors: tuple[Tensor, ...]) -> None:
        self.device = device
        self.number = number
        self.tensors = tensors

    def launch(self) -> None:
        self.device.launched.append(self.number)
        if self.number:
            assert self.device.computed[self.number - 1].wait(LIMIT_S)

    def result(self, handovers: Sequence[Handover] = ()) -> StageResult:
        assert self.device.computed[self.number].wait(LIMIT_S)
        return StageResult(self.tensors, compute_us=self.number)

"""Another executor at the pace of a device one does not have.

The answer is held until the latency planned for the emulated GPU class has passed. When the real
computation takes longer, the overrun is reported, never hidden.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.domain.errors import StageLoadFailed
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from penstock.domain.units import US_PER_SECOND, Micros
from worker.executors.base import Executor, StageResult
from worker.stages import Stage

_NS_PER_US = 1_000


class EmulatedExecutor:
    """Runs another executor and holds its answers back.

    Args:
        compute: makes the answers; one that takes no time emulates timing only.
    """

    def __init__(self, compute: Executor) -> None:
        self._compute = compute
        self._latency_us_by_batch: tuple[Micros, ...] = ()
        self._ended_us: Micros = 0

    def load(self, stage: Stage) -> Computation:
        """Load the stage into the executor that computes.

        Raises:
            StageLoadFailed: it failed there, or a batch size has no planned latency.
        """
        if len(stage.latency_us_by_batch) < stage.batch:
            raise StageLoadFailed(
                f"{stage.name}: emulation needs a latency for each batch size up to "
                f"{stage.batch}, the plan has {len(stage.latency_us_by_batch)}"
            )
        self._latency_us_by_batch = stage.latency_us_by_batch
        return self._compute.load(stage)

    def run(self, tensors: Sequence[Tensor], samples: int, *, queued: bool = False) -> StageResult:
        """Compute, then wait until the emulated device would be done.

        Between two batches this process needs time that a device with a queue does not: so a
        queued batch counts from the end of the one before.
        """
        start_us = self._ended_us if queued else _now_us()
        end_us = start_us + self._latency_us_by_batch[samples - 1]
        result = self._compute.run(tensors, samples)
        left_us = end_us - _now_us()
        if left_us > 0:
            time.sleep(left_us / US_PER_SECOND)
        self._ended_us = end_us + max(0, -left_us)
        return StageResult(result.tensors, overrun_us=max(0, -left_us))

    def close(self) -> None:
        """Close the executor that computes."""
        self._compute.close()


def _now_us() -> Micros:
    return time.monotonic_ns() // _NS_PER_US

"""One batch size of a program on a CUDA device: static buffers, and a captured graph if it can be.

Graphs of one stage share a memory pool: they never run at the same time, and what they give is
copied out before the next one runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Outputs: TypeAlias = Sequence[torch.Tensor]
Run: TypeAlias = Callable[[Sequence[torch.Tensor]], Outputs]
Pool: TypeAlias = Any  # torch's handle; nobody looks into it

# torch allows one capture at a time in a process, which may have several stages.
_CAPTURING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Built:
    """A batch size that can be run.

    Attributes:
        buffers: its inputs; written to before each run.
        run: computes; its outputs hold until it, or another size, runs again.
    """

    buffers: Sequence[torch.Tensor]
    run: Callable[[], Outputs]


def plain(run: Run, buffers: Sequence[torch.Tensor]) -> Built:
    """Return a size that launches its kernels one by one."""
    return Built(buffers, lambda: run(buffers))


def captured(
    run: Run, buffers: Sequence[torch.Tensor], stream: torch.cuda.Stream, pool: Pool
) -> Built:
    """Return a size that is replayed. It must have run before, and nothing may run on the stream.

    `torch.cuda.graph` is not used: it empties both caches of memory, which other threads would
    then wait for.

    Raises:
        RuntimeError: it does what cannot be captured, such as waiting for the device.
    """
    graph = torch.cuda.CUDAGraph()
    with _CAPTURING, torch.cuda.stream(stream), torch.inference_mode():
        # Only this thread's mistakes matter: others go on copying meanwhile.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            outputs = run(buffers)
        finally:
            graph.capture_end()

    def replay() -> Outputs:
        graph.replay()
        return outputs

    return Built(buffers, replay)

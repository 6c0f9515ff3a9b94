"""How a batch goes through an executor: in one step, or copied in, computed and copied out at once.

Threads and futures live here; the performer knows only when the next batch may start and when one
is done. Knows nothing of frames or reports.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Threads
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from penstock.domain.tensors import Tensor
from worker.executors.base import Executor, Flight, Handover, OverlappingExecutor, StageResult

_BRIEF_NS = 500_000  # as long as the event loop waits for the interpreter, see `worker.process`
_FORGETTING = 1.1  # the least time grows so much with each run that took longer

Join: TypeAlias = Callable[[], Sequence[Tensor]]
Copied: TypeAlias = Future[Flight]
Onward: TypeAlias = Callable[[], Sequence[Handover]]


def to_host() -> Sequence[Handover]:
    """Say that all outputs are wanted in host memory."""
    return ()


@dataclass(frozen=True, slots=True)
class Started:
    """A batch that is computed.

    Attributes:
        accepted: done when the next batch may start.
        result: done when this one's outputs are there.
    """

    accepted: asyncio.Future[StageResult] | asyncio.Future[Flight]
    result: asyncio.Future[StageResult]


class Computing(Protocol):
    """Takes batches in the order they are to be computed."""

    def copy_in(self, join: Join, samples: int) -> Copied | None:
        """Begin with a batch that will be computed soon; None: there is nothing to begin with.

        Args:
            join: gives its inputs; called in another thread.
            samples: rows.
        """
        ...

    def start(
        self,
        join: Join,
        samples: int,
        copied: Copied | None,
        onward: Onward = to_host,
        *,
        queued: bool,
    ) -> Started:
        """Compute a batch.

        Args:
            join: gives its inputs; called in another thread.
            samples: rows.
            copied: what `copy_in` gave for it, if it was asked.
            onward: says, when it is computed, what need not come to host memory.
            queued: as in `Executor.run`.
        """
        ...


def new_computing(executor: Executor, compute: Threads) -> Computing:
    """Return the way that an executor offers.

    Args:
        executor: loaded.
        compute: one thread; the one that loaded the executor.
    """
    if isinstance(executor, OverlappingExecutor):
        return _Overlapped(executor, compute)
    return _Direct(executor, compute)


class _Direct:
    """One batch after the other: in the computing thread, or at once where that is quicker.

    Handing a batch to another thread and back costs some 200 us of processor time, on a sleeping
    core more. A batch size that takes no longer is computed where it is started: the event loop
    waits for the interpreter meanwhile either way.
    """

    def __init__(self, executor: Executor, compute: Threads) -> None:
        self._executor = executor
        self._compute = compute
        self._least_ns: dict[int, float] = {}  # by batch size; what is not seen again is forgotten

    def copy_in(self, join: Join, samples: int) -> None:  # noqa: ARG002 - nothing to begin with
        return None

    def start(
        self,
        join: Join,
        samples: int,
        copied: Copied | None,  # noqa: ARG002 - there is none
        onward: Onward = to_host,  # noqa: ARG002 - it computes in host memory
        *,
        queued: bool,
    ) -> Started:
        loop = asyncio.get_running_loop()
        run = partial(self._run, join, samples, queued)
        if self._least_ns.get(samples, math.inf) > _BRIEF_NS:
            result = loop.run_in_executor(self._compute, run)
        else:
            result = loop.create_future()
            _settle(result, run)
        return Started(result, result)

    def _run(self, join: Join, samples: int, queued: bool) -> StageResult:
        began_ns = time.perf_counter_ns()
        try:
            return self._executor.run(join(), samples, queued=queued)
        finally:
            took_ns = time.perf_counter_ns() - began_ns
            self._least_ns[samples] = min(
                took_ns, _FORGETTING * self._least_ns.get(samples, math.inf)
            )


class _Overlapped:
    """A batch is copied in while the one before computes and the one before that is copied out."""

    def __init__(self, executor: OverlappingExecutor, compute: Threads) -> None:
        self._executor = executor
        self._compute = compute
        self._into = ThreadPoolExecutor(1, thread_name_prefix="copy in")
        self._out_of = ThreadPoolExecutor(1, thread_name_prefix="copy out")

    def copy_in(self, join: Join, samples: int) -> Copied:
        return self._into.submit(lambda: self._executor.copy_in(join(), samples))

    def start(
        self,
        join: Join,
        samples: int,
        copied: Copied | None,
        onward: Onward = to_host,
        *,
        queued: bool,  # noqa: ARG002 - only emulation asks
    ) -> Started:
        coming = copied or self.copy_in(join, samples)
        loop = asyncio.get_running_loop()
        accepted = loop.run_in_executor(self._compute, _launched, coming)
        return Started(accepted, asyncio.ensure_future(self._result(accepted, onward)))

    async def _result(self, accepted: asyncio.Future[Flight], onward: Onward) -> StageResult:
        flight, loop = await accepted, asyncio.get_running_loop()
        return await loop.run_in_executor(self._out_of, flight.result, onward())


def _settle(result: asyncio.Future[StageResult], run: Callable[[], StageResult]) -> None:
    try:
        result.set_result(run())
    except Exception as error:  # whatever an executor raises concerns this batch only
        result.set_exception(error)


def _launched(coming: Copied) -> Flight:
    flight = coming.result()
    flight.launch()
    return flight

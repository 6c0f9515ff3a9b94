"""Batches through an executor that copies and computes at once, and through one that does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.domain.errors import InvalidInput
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from tests.unit.worker.overlapping import LIMIT_S, Device
from worker.computing import Started, new_computing
from worker.executors.base import StageResult
from worker.stages import Stage


def tensors(samples: int) -> tuple[Tensor, ...]:
    return (Tensor("x", "UINT8", (samples,), bytes(samples)),)


async def until(started: Started) -> StageResult:
    return await asyncio.wait_for(asyncio.shield(started.result), LIMIT_S)


async def test_the_next_batch_is_queued_while_one_computes() -> None:
    device = Device()
    with ThreadPoolExecutor(1) as compute:
        computing = new_computing(device, compute)
        first = computing.start(lambda: tensors(1), 1, None, queued=False)
        await asyncio.wait_for(first.accepted, LIMIT_S)
        assert not first.result.done()
        copied = computing.copy_in(lambda: tensors(2), 2)
        assert copied is not None
        copied.result(LIMIT_S)  # copied in while the first one computes
        assert device.copied == [1, 2]
        second = computing.start(lambda: tensors(2), 2, copied, queued=True)
        while device.launched != [0, 1]:  # noqa: ASYNC110 - a list, not an event
            await asyncio.sleep(0.001)
        assert not second.accepted.done()  # it waits for the first in the device's queue
        device.computed[0].set()
        assert (await until(first)).tensors == tensors(1)
        await asyncio.wait_for(second.accepted, LIMIT_S)
        device.computed[1].set()
        assert (await until(second)).compute_us == 1


async def test_a_batch_that_does_not_fit_fails_alone() -> None:
    device = Device()
    for event in device.computed:
        event.set()
    with ThreadPoolExecutor(1) as compute:
        computing = new_computing(device, compute)
        copied = computing.copy_in(tuple, 0)
        bad = computing.start(tuple, 0, copied, queued=False)
        with pytest.raises(InvalidInput):
            await until(bad)
        with pytest.raises(InvalidInput):
            await bad.accepted
        good = computing.start(lambda: tensors(1), 1, None, queued=False)
        assert (await until(good)).tensors == tensors(1)


class Sleeper:
    """Computes in no time, or in a while; remembers in which threads."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        self.threads: list[int] = []

    def load(self, stage: Stage) -> Computation:
        return Computation()

    def run(self, tensors: Sequence[Tensor], samples: int, *, queued: bool = False) -> StageResult:
        self.threads.append(threading.get_ident())
        time.sleep(self.pause_s)
        if samples == 0:
            raise InvalidInput("batch", "samples", "at least 1", "0")
        return StageResult(tuple(tensors))

    def close(self) -> None:
        pass


async def test_a_brief_batch_is_computed_at_once_and_a_longer_one_is_not_any_more() -> None:
    sleeper, here = Sleeper(), threading.get_ident()
    with ThreadPoolExecutor(1) as compute:
        computing = new_computing(sleeper, compute)

        async def run(samples: int) -> int:
            started = computing.start(lambda: tensors(samples), samples, None, queued=False)
            assert (await until(started)).tensors == tensors(samples)
            return sleeper.threads[-1]

        assert await run(1) != here  # it is not known yet how long it takes
        assert here in [await run(1) for _ in range(50)]  # some may be held up by other programs
        assert await run(2) != here  # each size for itself
        sleeper.pause_s = 0.002
        found = [await run(1) for _ in range(200)]  # a few may be noise; then it is believed
        assert found[-1] != here
        assert len([each for each in found if each == here]) < 150


async def test_an_error_of_a_brief_batch_is_its_own() -> None:
    sleeper = Sleeper()
    with ThreadPoolExecutor(1) as compute:
        computing = new_computing(sleeper, compute)
        for _ in range(3):
            with pytest.raises(InvalidInput):
                await until(computing.start(lambda: tensors(0), 0, None, queued=False))
        good = computing.start(lambda: tensors(1), 1, None, queued=False)
        assert (await until(good)).tensors == tensors(1)

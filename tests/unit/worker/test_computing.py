"""Batches through an executor that copies and computes at once, and through one that does not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Tensor
from tests.unit.worker.overlapping import LIMIT_S, Device
from worker.computing import Started, new_computing
from worker.executors.base import StageResult


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

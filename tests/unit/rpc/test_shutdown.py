"""Signals become events; work is bounded."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from penstock.rpc.shutdown import SIGNALS, StopSignals, bounded


@pytest.mark.parametrize("first", SIGNALS)
async def test_the_first_signal_asks_and_the_second_insists(first: signal.Signals) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), first)
        await asyncio.wait_for(signals.asked.wait(), 5)
        assert not signals.insisted.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.insisted.wait(), 5)


async def test_work_within_its_limit_is_finished() -> None:
    assert await bounded(asyncio.sleep(0), 5, asyncio.Event())


async def test_work_beyond_its_limit_is_cancelled() -> None:
    never = asyncio.Event()
    assert not await bounded(never.wait(), 0.01, asyncio.Event())


async def test_insisting_ends_work_at_once() -> None:
    insisted = asyncio.Event()
    work = asyncio.create_task(bounded(asyncio.Event().wait(), 60, insisted))
    await asyncio.sleep(0)
    insisted.set()
    assert not await asyncio.wait_for(work, 5)


async def test_an_error_in_the_work_is_the_callers() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await bounded(fail(), 5, asyncio.Event())

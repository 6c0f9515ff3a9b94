"""Leases end with the last view, in whichever thread."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from penstock.rpc.holdings import Holdings


async def test_bytes_count_until_the_last_view_is_gone() -> None:
    holdings, freed = Holdings(100), []
    view = holdings.lease(b"0123456789", lambda: freed.append(1))
    row = np.frombuffer(memoryview(view)[2:4], np.uint8)
    assert bytes(view) == b"0123456789"
    del view
    assert (holdings.held_bytes, freed) == (10, [])
    assert row.tolist() == [ord("2"), ord("3")]
    del row
    assert (holdings.held_bytes, freed) == (0, [1])


async def test_there_is_room_again_when_enough_is_gone() -> None:
    holdings, told = Holdings(10), []
    holdings.on_room = lambda: told.append(1)
    views = [holdings.lease(bytes(6)) for _ in range(2)]
    assert holdings.full
    waiting = asyncio.create_task(holdings.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    views.pop()
    await asyncio.wait_for(waiting, 5)
    assert told == [1]


async def test_a_view_may_die_in_another_thread() -> None:
    holdings = Holdings(5)
    views = [holdings.lease(bytes(10))]
    thread = threading.Thread(target=views.clear)
    thread.start()
    await asyncio.wait_for(holdings.room(), 5)
    thread.join()
    assert holdings.held_bytes == 0


def test_a_view_may_outlive_the_loop() -> None:
    async def lease() -> memoryview:
        return Holdings(5).lease(bytes(10))

    views = [asyncio.run(lease())]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()

"""Loss of processes under load: every request ends exactly once, and the fleet recovers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from client.inputs import random_inputs
from client.load import LoadSettings, Target, run_load
from client.outcomes import OK, LoadResult
from penstock.arrivals import constant
from penstock.domain.arrivals import Arrival
from penstock.domain.blocks import TensorSpec
from penstock.domain.ids import ModelName
from tests.support.builders import MODEL
from tests.support.fleets import WIDTH, RunningFleet, a_fleet, descendants

pytestmark = pytest.mark.e2e

SPEC = TensorSpec(name="t0", datatype="FP32", shape=(-1, WIDTH))
ALLOWED = {OK, "UNAVAILABLE", "DEADLINE_EXCEEDED"}


async def load(running: RunningFleet, seconds: float, rate_rps: float = 80.0) -> LoadResult:
    duration_us = int(seconds * 1_000_000)
    arrivals = tuple(
        Arrival(arrival_us=at_us, model=MODEL) for at_us in constant(rate_rps, duration_us)
    )
    target = Target(inputs=random_inputs((SPEC,), 0), slo_us=running.plan.models[0].slo_us)
    settings = LoadSettings(
        address=running.addresses.inference,
        arrivals=arrivals,
        targets={ModelName("m"): target},
        duration_us=duration_us,
    )
    return await run_load(settings)


def instance_of(running: RunningFleet, worker: str) -> int:
    (instance,) = descendants(running.fleet.process_ids[worker])
    return instance


def test_a_killed_instance_loses_no_request_and_comes_back(tmp_path: Path) -> None:
    with a_fleet(tmp_path) as running:

        async def play() -> tuple[LoadResult, LoadResult]:
            async with asyncio.TaskGroup() as group:
                under_way = group.create_task(load(running, 3.0))
                await asyncio.sleep(1.0)
                os.kill(instance_of(running, "worker-slow-0"), signal.SIGKILL)
            return under_way.result(), await load(running, 1.0)

        during, after = asyncio.run(play())
    # The other instance of the pool takes over: with a second of SLO nothing need be lost.
    assert {each.status for each in during.outcomes} == {OK}
    assert {each.status for each in after.outcomes} == {OK}


def test_a_killed_worker_that_was_alone_leaves_refusals_not_silence(tmp_path: Path) -> None:
    with a_fleet(tmp_path) as running:

        async def play() -> LoadResult:
            async with asyncio.TaskGroup() as group:
                under_way = group.create_task(load(running, 3.0))
                await asyncio.sleep(1.0)
                os.kill(running.fleet.process_ids["worker-fast-0"], signal.SIGKILL)
            return under_way.result()

        outcomes = asyncio.run(play()).outcomes
    assert {each.status for each in outcomes} <= ALLOWED
    assert sum(each.status == OK for each in outcomes) >= 70
    assert outcomes[-1].status == "UNAVAILABLE"
    assert max(each.latency_us for each in outcomes) < 3_000_000


def test_overload_is_refused_and_what_is_answered_is_in_time(tmp_path: Path) -> None:
    with a_fleet(tmp_path, slo_us=300_000) as running:
        # One instance of 5 ms for batches of 4 cannot take more than 800 a second.
        overload = asyncio.run(load(running, 2.0, rate_rps=1_600.0))
        after = asyncio.run(load(running, 1.0, rate_rps=50.0))
    statuses = {each.status for each in overload.outcomes}
    assert statuses <= {*ALLOWED, "RESOURCE_EXHAUSTED"}
    assert statuses > {OK}
    assert {each.status for each in after.outcomes} == {OK}

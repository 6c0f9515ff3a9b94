"""Workers as real processes against the frontend's side of the wire."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from frontend.membership import InstanceState
from penstock.domain.ids import InstanceId
from penstock.domain.plan import Plan
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    InstanceJoined,
    InstanceLost,
    StageFinished,
)
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import children_of, fp32, frontend_side, gone, kill, worker_process
from tests.support.repositories import write_shapes_model

pytestmark = pytest.mark.e2e


def two_stage_plan(digest: str, *, latencies_us: tuple[int, ...] = (5_000, 6_000)) -> Plan:
    first = a_pool("p0", blocks=(0, 1), latencies_us=latencies_us)
    second = a_pool("p1", position=1, blocks=(1, 2), latencies_us=latencies_us)
    model = a_model_plan((first, second))
    return a_plan(dataclasses.replace(model, blocks_digest=digest))


async def test_a_batch_goes_through_two_workers(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, worker_id="a"),
        worker_process(side.control, tmp_path, worker_id="b"),
        worker_process(side.control, tmp_path, worker_id="c"),
    ):
        await side.inbox.count(InstanceJoined, 2)
        assert side.membership.complete
        assert side.membership.emulated
        side.payloads.inputs = [fp32("t0", 2, 3)]
        began_us = side.clock.now_us()
        side.run_batch(0, "p0/0", "p1/0")
        await side.inbox.count(BatchFinished)
        took_us = side.clock.now_us() - began_us

        (tensors,) = side.payloads.scattered
        assert [(each.name, each.shape) for each in tensors] == [("t2", (2, 3))]
        stages = side.inbox.of(StageFinished)
        assert [each.stage for each in stages] == [0, 1]
        assert all(each.compute_us >= 6_000 for each in stages)
        assert took_us >= 12_000
        states = {each.worker: len(each.instances) for each in side.membership.snapshot()}
        assert sorted(states.values()) == [0, 1, 1]  # one is a spare


async def test_a_killed_child_is_lost_and_comes_back(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, worker_id="a"),
        worker_process(side.control, tmp_path, worker_id="b"),
    ):
        await side.inbox.count(InstanceJoined, 2)
        victims = {
            instance.instance: instance.process_id
            for worker in side.membership.snapshot()
            for instance in worker.instances
        }
        kill(victims[InstanceId("p1/0")])
        await side.inbox.count(InstanceLost)
        await side.inbox.count(InstanceJoined, 3)
        assert InstanceLost(InstanceId("p1/0")) in side.inbox.events
        side.payloads.inputs = [fp32("t0", 2, 3)]
        side.run_batch(0, "p0/0", "p1/0")
        await side.inbox.count(BatchFinished)


async def test_a_killed_worker_leaves_no_process_and_its_spare_takes_over(tmp_path: Path) -> None:
    digest = write_shapes_model(tmp_path)
    pool = a_pool("p0", blocks=(0, 2), latencies_us=(1_000, 2_000))
    plan = a_plan(dataclasses.replace(a_model_plan((pool,)), blocks_digest=digest))
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path) as first:
        await side.inbox.count(InstanceJoined)
        async with worker_process(side.control, tmp_path, worker_id="spare"):
            children = children_of(first.pid)
            assert len(children) == 1
            first.send(signal.SIGKILL)
            await gone(children)
            await side.inbox.count(InstanceLost)
            await side.inbox.count(InstanceJoined, 2)
            assert [each.worker for each in side.membership.snapshot()] == ["spare"]


async def test_sigterm_ends_a_worker_and_its_children(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path) as worker:
        await side.inbox.count(InstanceJoined)
        children = children_of(worker.pid)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        await gone(children, limit_s=1.0)
        await side.inbox.count(InstanceLost)
        assert "Traceback" not in await worker.said()


async def test_other_blocks_than_planned_are_refused_in_words(tmp_path: Path) -> None:
    write_shapes_model(tmp_path)
    plan = two_stage_plan("f" * 64)
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path):

        def failed() -> list[str]:
            return [
                instance.detail
                for worker in side.membership.snapshot()
                for instance in worker.instances
                if instance.state is InstanceState.FAILED
            ]

        async with asyncio.timeout(20):
            while not failed():  # noqa: ASYNC110  # no event: the dispatcher need not know
                await asyncio.sleep(0.02)
        assert "blocks.json: expected sha256 ffffffffffff" in failed()[0]
        assert not side.inbox.of(InstanceJoined)


async def test_a_wrong_gpu_class_is_refused_in_words(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, gpu_class="H900") as worker,
    ):
        assert await worker.ended() == 1
        said = await worker.said()
        assert "the plan knows no GPU class 'H900'; it knows fast" in said
        assert "Traceback" not in said


async def test_a_batch_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, tmp_path, worker_id="a"),
        worker_process(side.control, tmp_path, worker_id="b"),
    ):
        await side.inbox.count(InstanceJoined, 2)
        side.payloads.inputs = [fp32("nonsense", 2, 3)]
        side.run_batch(0, "p0/0", "p1/0")
        await side.inbox.count(BatchFailed)
        side.payloads.inputs = [fp32("t0", 9, 3)]
        side.run_batch(1, "p0/0", "p1/0", samples=9)
        await side.inbox.count(BatchFailed, 2)
        details = [each.detail for each in side.inbox.of(BatchFailed)]
        assert "expected t0, found nonsense" in details[0]
        assert "this stage takes 1 to 2" in details[1]
        side.payloads.inputs = [fp32("t0", 2, 3)]
        side.run_batch(2, "p0/0", "p1/0")
        await side.inbox.count(BatchFinished)


async def test_a_worker_finds_a_frontend_that_comes_back(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with AsyncExitStack() as stack:
        async with frontend_side(plan) as first:
            worker = await stack.enter_async_context(worker_process(first.control, tmp_path))
            await first.inbox.count(InstanceJoined)
            children = children_of(worker.pid)
            port = int(first.control.rpartition(":")[2])
        await gone(children)
        async with frontend_side(plan, port=port) as second:
            await second.inbox.count(InstanceJoined)


async def test_an_instance_does_not_outlive_its_link_with_the_frontend(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with frontend_side(plan) as side, worker_process(side.control, tmp_path) as worker:
        await side.inbox.count(InstanceJoined)
        old = children_of(worker.pid)
        side.performer.on_peer_lost("p0/0")  # as if the instance could not reach us any more
        await side.inbox.count(InstanceLost)
        await side.inbox.count(InstanceJoined, 2)
        assert not set(old) & set(children_of(worker.pid))


async def test_a_silent_worker_is_lost_and_comes_back(tmp_path: Path) -> None:
    plan = two_stage_plan(write_shapes_model(tmp_path))
    async with (
        frontend_side(plan, heartbeat_us=200_000) as side,
        worker_process(side.control, tmp_path) as worker,
    ):
        await side.inbox.count(InstanceJoined)
        worker.send(signal.SIGSTOP)
        await side.inbox.count(InstanceLost)
        assert side.membership.snapshot() == ()
        worker.send(signal.SIGCONT)
        await side.inbox.count(InstanceJoined, 2)

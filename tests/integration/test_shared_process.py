"""Several instances in one process: they work, they go one by one, and they share a fate."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from frontend.membership import InstanceStatus
from penstock.domain.ids import InstanceId
from penstock.domain.plan import Plan
from penstock.formats.codec import digest
from penstock.formats.layout import BLOCKS_FILE
from penstock.rpc.links import Neighbours
from penstock.scheduling.events import BatchFinished, InstanceJoined, InstanceLost
from penstock.shares.held import ShareHolder
from protos.control_pb2 import UnloadInstance, WorkerCommand
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import (
    FrontendSide,
    WorkerProcess,
    children_of,
    fp32,
    frontend_side,
    gone,
    kill,
    worker_process,
)
from tests.support.repositories import unsplit, write_shapes_model, write_tiny_model
from worker.instance import open_instance
from worker.settings import InstanceSettings
from worker.stages import StageOrder

pytestmark = pytest.mark.e2e

TOGETHER = ("--process-per", "device")
A, B = InstanceId("p0/0"), InstanceId("p0/1")


def halves(blocks_digest: str) -> Plan:
    """Return a plan of one stage with two instances on one device."""
    pool = a_pool(
        "p0", blocks=(0, 2), instances=2, share=Fraction(1, 2), latencies_us=(1_000, 1_000)
    )
    return a_plan(dataclasses.replace(a_model_plan((pool,)), blocks_digest=blocks_digest))


@asynccontextmanager
async def together(
    plan: Plan, repository: Path
) -> AsyncIterator[tuple[FrontendSide, WorkerProcess]]:
    async with (
        frontend_side(plan) as side,
        worker_process(side.control, repository, flags=TOGETHER) as worker,
    ):
        await side.inbox.count(InstanceJoined, 2)
        yield side, worker


def instances(side: FrontendSide) -> dict[InstanceId, InstanceStatus]:
    return {
        each.instance: each for worker in side.membership.snapshot() for each in worker.instances
    }


async def served(side: FrontendSide, batch: int, instance: InstanceId) -> None:
    side.payloads.inputs = [fp32("t0", 2, 3)]
    before = len(side.inbox.of(BatchFinished))
    side.run_batch(batch, instance)
    await side.inbox.count(BatchFinished, before + 1)


@pytest.mark.parametrize("executor", ["cpu", "emulated", "emulated-shapes"])
async def test_two_instances_beside_each_other_compute_what_the_model_does(
    tmp_path: Path, executor: str
) -> None:
    partition = write_tiny_model(tmp_path, blocks=2, width=3)
    text = (tmp_path / "m" / "1" / BLOCKS_FILE).read_text(encoding="utf-8")
    shares, neighbours = ShareHolder(), Neighbours()
    async with frontend_side(halves(digest(text))) as side:
        opened = []
        for name in (A, B):
            settings = settings_of(name, executor, tmp_path, side.control)
            opened.append(await open_instance(settings, shares, neighbours))
            await side.performer.connect(name, f"127.0.0.1:{opened[-1].port}")
        data = bytes(range(8)) * 3
        side.payloads.inputs = [fp32("t0", 2, 3, data)]
        side.run_batch(0, A)
        side.run_batch(1, B)
        await side.inbox.count(BatchFinished, 2)
        computed = executor != "emulated-shapes"
        expected = unsplit(tmp_path / "m" / "1", partition, data, 2) if computed else bytes(24)
        assert [bytes(each.data) for (each,) in side.payloads.scattered] == [expected, expected]
        await opened[0].close()
        assert not opened[1].lost.done()
        side.run_batch(2, B)
        await side.inbox.count(BatchFinished, 3)
        await opened[1].close()


def settings_of(
    name: InstanceId, executor: str, repository: Path, frontend: str
) -> InstanceSettings:
    return InstanceSettings(
        instance=name,
        executor=executor,
        repository=str(repository),
        host="127.0.0.1",
        frontend_link=frontend,
        threads=1,
        order=StageOrder(
            model="m",
            version="1",
            first_block=0,
            end_block=2,
            batch=2,
            latency_us_by_batch=(1_000, 1_000),
        ),
    )


async def test_a_killed_process_takes_all_its_instances_and_brings_them_back(
    tmp_path: Path,
) -> None:
    async with together(halves(write_shapes_model(tmp_path)), tmp_path) as (side, worker):
        (process,) = children_of(worker.pid)
        kill(process)
        await side.inbox.count(InstanceLost, 2)
        await side.inbox.count(InstanceJoined, 4)
        assert {each.instance for each in side.inbox.of(InstanceLost)} == {A, B}
        (fresh,) = children_of(worker.pid)
        assert fresh != process
        await served(side, 0, A)
        await served(side, 1, B)


async def test_a_lost_link_of_one_is_the_end_of_all(tmp_path: Path) -> None:
    async with together(halves(write_shapes_model(tmp_path)), tmp_path) as (side, worker):
        old = children_of(worker.pid)
        side.performer.on_peer_lost(A)  # as if it could not reach us any more
        await side.inbox.count(InstanceLost, 2)
        await side.inbox.count(InstanceJoined, 4)
        assert not set(old) & set(children_of(worker.pid))


async def test_one_instance_is_unloaded_and_the_other_goes_on(tmp_path: Path) -> None:
    async with together(halves(write_shapes_model(tmp_path)), tmp_path) as (side, worker):
        (process,) = children_of(worker.pid)
        (member,) = side.membership._members.values()
        unload = UnloadInstance(instance_id=A)
        member.commands.put_nowait(WorkerCommand(unload=unload))
        await side.inbox.count(InstanceLost)
        assert [each.instance for each in side.inbox.of(InstanceLost)] == [A]
        await served(side, 0, B)
        assert children_of(worker.pid) == [process]
        # And it comes back beside the other one.
        planned = next(each for each in side.membership._seats[0].slot.instances if each.id == A)
        load = WorkerCommand(load=side.membership._load(planned))
        member.commands.put_nowait(load)
        await side.inbox.count(InstanceJoined, 3)
        await served(side, 1, A)
        assert children_of(worker.pid) == [process]


async def test_a_stage_that_does_not_load_leaves_the_other_alone(tmp_path: Path) -> None:
    plan = halves(write_shapes_model(tmp_path))
    async with together(plan, tmp_path) as (side, worker):
        (member,) = side.membership._members.values()
        planned = next(each for each in side.membership._seats[0].slot.instances if each.id == A)
        load = side.membership._load(planned)
        load.blocks_sha256 = "f" * 64
        member.commands.put_nowait(WorkerCommand(load=load))
        await side.inbox.count(InstanceLost)
        async with asyncio.timeout(20):
            while "expected sha256" not in instances(side)[A].detail:  # noqa: ASYNC110  # no event
                await asyncio.sleep(0.02)
        await served(side, 0, B)
        assert len(children_of(worker.pid)) == 1


async def test_sigterm_ends_the_process_of_all(tmp_path: Path) -> None:
    async with together(halves(write_shapes_model(tmp_path)), tmp_path) as (side, worker):
        children = children_of(worker.pid)
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        await gone(children, limit_s=1.0)
        await side.inbox.count(InstanceLost, 2)
        assert "Traceback" not in await worker.said()

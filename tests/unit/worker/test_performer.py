"""The stage performer with a scripted executor: order, reports, onward durations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from penstock.aio.clock import MonotonicClock
from penstock.domain.execution import Computation
from penstock.domain.tensors import Tensor
from penstock.rpc.frames import announce
from penstock.rpc.links import LinkReceiver, LinkSender, LinkServer
from protos.link_pb2 import CancelBatch, FrameHeader, Hop, Reply, RunStage, StageReport
from tests.unit.worker.overlapping import Device
from worker.computing import new_computing
from worker.executors.base import StageResult
from worker.forwarding import Forwarding
from worker.performer import StagePerformer
from worker.rows import Rows
from worker.stages import Stage


class ScriptedExecutor:
    """Answers its inputs, once it is allowed to."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.started: list[int] = []
        self.failure: Exception | None = None

    def load(self, stage: Stage) -> Computation:
        raise NotImplementedError

    def run(self, tensors: Sequence[Tensor], samples: int, *, queued: bool = False) -> StageResult:
        self.started.append(samples)
        assert self.gate.acquire(timeout=5)
        if self.failure is not None:
            raise self.failure
        return StageResult(tuple(tensors), overrun_us=samples)

    def close(self) -> None:
        raise NotImplementedError


@dataclass
class Peer:
    """The frontend's or the next instance's end."""

    server: LinkServer
    frames: asyncio.Queue[tuple[FrameHeader, list[bytes]]] = field(default_factory=asyncio.Queue)

    def take(self, _: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        if not header.HasField("link_opened"):
            self.frames.put_nowait((header, [bytes(each) for each in views]))

    async def next(self) -> FrameHeader:
        return (await asyncio.wait_for(self.frames.get(), 5))[0]

    async def next_report(self) -> StageReport:
        """Return a report that came alone or with a result."""
        header = await self.next()
        return header.result.report if header.HasField("result") else header.report


@dataclass
class World:
    performer: StagePerformer
    executor: ScriptedExecutor
    frontend: Peer
    following: Peer

    def arrive(
        self,
        batch: int,
        *,
        samples: int = 1,
        last: bool = True,
        abandon_in_us: int = 10_000_000,
        sequence: int | None = None,
        stage: int = 0,
    ) -> None:
        tensor = Tensor("x", "UINT8", (samples,), bytes(samples))
        number = batch if sequence is None else sequence
        route = [Hop(instance_id="me", address="me:1", sequence=number)]
        if not last:
            address = self.following.server.address
            route.append(Hop(instance_id="next", address=address, start_in_us=5_000_000))
        run = RunStage(
            batch_id=batch,
            model="m",
            samples=samples,
            stage=stage,
            route=route,
            abandon_in_us=abandon_in_us,
        )
        announce(run.tensors, tensor.name, tensor.datatype, tensor.shape, [tensor.data])
        header = FrameHeader(run_stage=run)
        self.performer.on_frame("frontend", header, [memoryview(bytes(samples))])

    def arrive_rows(
        self,
        first: int,
        count: int,
        *,
        route: Sequence[Hop],
        place: int = 1,
        abandon_in_us: int = 10_000_000,
        replies: Sequence[Reply] = (),
    ) -> None:
        """Bring some rows of a part of batch 0, numbered as they are in the batch."""
        data = bytes(range(first, first + count))
        run = RunStage(
            batch_id=0,
            model="m",
            samples=4,
            stage=place,
            route=route,
            abandon_in_us=abandon_in_us,
            first=first,
            count=count,
            replies=replies,
        )
        announce(run.tensors, "x", "UINT8", (count,), [data])
        self.performer.on_frame("before", FrameHeader(run_stage=run), [memoryview(data)])

    def hop(self, stage: int, first: int, count: int, *, mine: bool = False) -> Hop:
        address = "me:1" if mine else self.following.server.address
        return Hop(
            instance_id="me" if mine else "next",
            address=address,
            start_in_us=0 if mine else 5_000_000,
            stage=stage,
            first=first,
            count=count,
        )


async def a_peer() -> Peer:
    peer = Peer(LinkServer("127.0.0.1"))
    await peer.server.start(LinkReceiver(peer.take, lambda _: None))
    return peer


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    frontend, following = await a_peer(), await a_peer()
    link = LinkSender(frontend.server.address, "me")
    executor = ScriptedExecutor()
    with ThreadPoolExecutor(1) as compute:
        performer = StagePerformer(
            instance="me",
            executor=executor,
            compute=compute,
            forwarding=Forwarding("me", link),
            now_us=MonotonicClock().now_us,
            largest_batch=4,
            rows=Rows(),
        )
        yield World(performer, executor, frontend, following)
        executor.gate.release(100)
    await link.close()
    for peer in (frontend, following):
        await peer.server.stop()


async def test_the_last_stage_reports_with_its_answer(world: World) -> None:
    world.executor.gate.release()
    world.arrive(0, samples=3)
    result = (await world.frontend.next()).result
    assert (result.batch_id, result.tensors[0].name, result.tensors[0].byte_size) == (0, "x", 3)
    report = result.report
    assert (report.batch_id, report.stage, report.instance_id) == (0, 0, "me")
    assert (report.outcome, report.overrun_us) == (StageReport.DONE, 3)
    assert report.compute_us > 0


async def test_an_earlier_stage_hands_on_with_shorter_durations(world: World) -> None:
    world.executor.gate.release()
    world.arrive(0, samples=2, last=False)
    assert (await world.frontend.next_report()).outcome == StageReport.DONE
    run = (await world.following.next()).run_stage
    assert (run.stage, run.samples, run.tensors[0].name) == (1, 2, "x")
    assert 4_000_000 < run.route[1].start_in_us < 5_000_000
    assert 9_000_000 < run.abandon_in_us < 10_000_000


async def test_one_batch_computes_while_others_arrive_in_booked_order(world: World) -> None:
    world.arrive(0, samples=1)
    world.arrive(2, samples=3)
    world.arrive(1, samples=2)
    for _ in range(3):
        world.executor.gate.release()
        assert (await world.frontend.next_report()).outcome == StageReport.DONE
    assert world.executor.started == [1, 2, 3]


async def test_brief_batches_are_computed_at_once_one_each_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.computing._BRIEF_NS", 60 * 10**9)  # nothing takes longer
    world.executor.gate.release(4)
    world.arrive(0)  # how long it takes is not known yet: in a thread
    assert (await world.frontend.next_report()).batch_id == 0
    for batch in (1, 2, 3):
        world.arrive(batch)
    assert len(world.executor.started) == 2  # the event loop is not held up by what waits
    reports = [await world.frontend.next_report() for _ in range(3)]
    assert [(each.batch_id, each.outcome) for each in reports] == [
        (batch, StageReport.DONE) for batch in (1, 2, 3)
    ]


async def test_late_and_cancelled_batches_are_given_up(world: World) -> None:
    world.arrive(0)
    world.arrive(1)
    world.arrive(2, abandon_in_us=1)
    cancel = FrameHeader(cancel=CancelBatch(batch_id=1))
    world.performer.on_frame("frontend", cancel, [])
    report = await world.frontend.next_report()
    assert (report.batch_id, report.outcome, report.detail) == (
        1,
        StageReport.ABANDONED,
        "cancelled",
    )
    world.executor.gate.release()
    reports = [await world.frontend.next_report() for _ in range(2)]
    assert {(each.batch_id, each.outcome, each.detail) for each in reports} == {
        (0, StageReport.DONE, ""),
        (2, StageReport.ABANDONED, "late"),
    }


async def test_a_failure_concerns_its_batch_only(world: World) -> None:
    world.executor.gate.release(2)
    world.executor.failure = RuntimeError("two\nlines")
    world.arrive(0)
    report = await world.frontend.next_report()
    assert (report.outcome, report.retriable) == (StageReport.FAILED, False)
    assert report.detail == "RuntimeError: two lines"
    world.executor.failure = None
    world.arrive(1)
    assert (await world.frontend.next_report()).outcome == StageReport.DONE


async def test_batches_that_cannot_be_taken_are_told(world: World) -> None:
    world.arrive(0, samples=5)
    world.arrive(1, stage=3)
    world.arrive(2)
    world.arrive(2)
    details = [(await world.frontend.next_report()).detail for _ in range(3)]
    assert details == [
        "a batch of 5; this stage takes 1 to 4",
        "stage 3 of a route of 1",
        "the batch is here already",
    ]
    world.performer.on_frame("frontend", FrameHeader(), [])
    world.executor.gate.release()
    assert (await world.frontend.next_report()).outcome == StageReport.DONE


async def test_a_lost_next_instance_fails_its_batches_retriably(world: World) -> None:
    world.executor.gate.release()
    world.arrive(0, last=False)
    assert (await world.frontend.next_report()).outcome == StageReport.DONE
    await world.following.next()
    await world.following.server.stop()
    report = await world.frontend.next_report()
    assert (report.batch_id, report.stage, report.instance_id) == (0, 1, "next")
    assert (report.outcome, report.retriable) == (StageReport.FAILED, True)


async def test_rows_from_several_senders_make_a_part_that_goes_on_in_parts(world: World) -> None:
    route = [
        *(world.hop(0, 0, 2), world.hop(0, 2, 2)),
        world.hop(1, 0, 4, mine=True),
        *(world.hop(2, 0, 3), world.hop(2, 3, 1)),
    ]
    world.executor.gate.release()
    world.arrive_rows(2, 2, route=route, place=2)
    assert world.executor.started == []
    world.arrive_rows(0, 2, route=route, place=2)
    report = await world.frontend.next_report()
    assert (report.stage, report.outcome) == (2, StageReport.DONE)
    assert world.executor.started == [4]
    for place, first, rows in ((3, 0, [0, 1, 2]), (4, 3, [3])):
        header, (data,) = await asyncio.wait_for(world.following.frames.get(), 5)
        run = header.run_stage
        assert (run.stage, run.samples, run.first, run.count) == (place, 4, first, len(rows))
        assert list(data) == rows
        assert 4_000_000 < run.route[3].start_in_us < 5_000_000
        assert [(hop.stage, hop.first, hop.count) for hop in run.route] == [
            *((0, 0, 2), (0, 2, 2)),
            (1, 0, 4),
            *((2, 0, 3), (2, 3, 1)),
        ]


async def test_a_part_of_the_last_stage_says_which_rows_it_has(world: World) -> None:
    world.executor.gate.release()
    world.arrive_rows(1, 3, route=[world.hop(0, 0, 4), world.hop(1, 1, 3, mine=True)])
    result = (await world.frontend.next()).result
    assert (result.first, result.count, list(result.tensors[0].shape)) == (1, 3, [3])
    assert result.report.stage == 1


async def test_what_has_come_of_a_part_is_forgotten_when_nobody_waits_for_it(world: World) -> None:
    route = [world.hop(0, 0, 4), world.hop(1, 0, 4, mine=True)]
    world.arrive_rows(0, 1, route=route, abandon_in_us=20_000)
    report = await world.frontend.next_report()
    assert (report.stage, report.outcome, report.detail) == (1, StageReport.ABANDONED, "late")
    world.arrive_rows(0, 1, route=route)
    world.performer.on_frame("frontend", FrameHeader(cancel=CancelBatch(batch_id=0)), [])
    assert (await world.frontend.next_report()).detail == "cancelled"
    world.arrive_rows(1, 3, route=route)
    assert (await world.frontend.next_report()).detail == "cancelled"
    assert world.performer._held == {}


async def test_rows_that_cannot_be_taken_are_told(world: World) -> None:
    route = [world.hop(0, 0, 4), world.hop(1, 0, 3, mine=True), world.hop(1, 3, 5, mine=True)]
    world.arrive_rows(2, 2, route=route)
    world.arrive_rows(3, 1, route=route, place=2)
    world.arrive_rows(0, 2, route=route)
    world.arrive_rows(1, 2, route=route)
    details = [(await world.frontend.next_report()).detail for _ in range(3)]
    assert details == [
        "rows 2-3 for a part from row 0 of 3 rows",
        "a batch of 5; this stage takes 1 to 4",
        "the rows are here already",
    ]


async def test_rows_that_do_not_fit_together_fail_the_part(world: World) -> None:
    route = [world.hop(0, 0, 4), world.hop(1, 0, 4, mine=True)]
    world.arrive_rows(0, 2, route=route)
    run = RunStage(batch_id=0, samples=4, stage=1, route=route, first=2, count=2)
    run.abandon_in_us = 10_000_000
    announce(run.tensors, "y", "UINT8", (2,), [bytes(2)])
    world.performer.on_frame("before", FrameHeader(run_stage=run), [memoryview(bytes(2))])
    report = await world.frontend.next_report()
    assert (report.outcome, report.retriable) == (StageReport.FAILED, False)
    assert "expected x, found y" in report.detail


async def test_a_whole_batch_may_come_from_several_senders(world: World) -> None:
    route = [Hop(instance_id="me", address="me:1")]
    world.executor.gate.release()
    world.arrive_rows(3, 1, route=route, place=0)
    assert world.executor.started == []
    world.arrive_rows(0, 3, route=route, place=0)
    header, (data,) = await asyncio.wait_for(world.frontend.frames.get(), 5)
    assert (header.result.first, header.result.count) == (0, 0)
    assert (world.executor.started, list(data)) == ([4], [0, 1, 2, 3])
    world.arrive_rows(0, 3, route=route, place=0)
    world.arrive_rows(2, 1, route=route, place=0)
    world.arrive_rows(3, 2, route=route, place=0)
    details = [(await world.frontend.next_report()).detail for _ in range(2)]
    assert details == ["the rows are here already", "rows 3-4 for a part from row 0 of 4 rows"]


async def test_each_acceptor_gets_its_own_rows_of_the_last_stage(world: World) -> None:
    other = await a_peer()
    replies = [
        Reply(address=world.following.server.address, first=0, count=1),
        Reply(address=other.server.address, first=1, count=3),
    ]
    world.executor.gate.release()
    route = [Hop(instance_id="me", address="me:1")]
    world.arrive_rows(0, 4, route=route, place=0, replies=replies)
    header, tensors = await asyncio.wait_for(world.following.frames.get(), 5)
    result = header.result
    assert (result.batch_id, result.first, result.count, tensors) == (0, 0, 1, [bytes([0])])
    assert result.report.outcome == StageReport.DONE  # with the rows of the first
    header, tensors = await asyncio.wait_for(other.frames.get(), 5)
    result = header.result
    assert (result.first, result.count, tensors) == (1, 3, [bytes([1, 2, 3])])
    assert not result.HasField("report")
    await other.server.stop()
    report = await world.frontend.next_report()
    assert (report.batch_id, report.outcome, report.retriable) == (0, StageReport.FAILED, True)
    assert report.stage == len(route)  # no hop's, so that it is not taken for one that is done


async def test_a_part_of_the_last_stage_goes_to_those_whose_rows_it_has(world: World) -> None:
    replies = [
        Reply(address="127.0.0.1:1", first=0, count=1),
        Reply(address=world.following.server.address, first=1, count=3),
    ]
    world.executor.gate.release()
    route = [world.hop(0, 0, 2), world.hop(0, 2, 2, mine=True)]
    world.arrive_rows(2, 2, route=route, place=1, replies=replies)
    header, (data,) = await asyncio.wait_for(world.following.frames.get(), 5)
    assert (header.result.first, header.result.count, list(data)) == (2, 2, [2, 3])
    assert header.result.report.stage == 1


async def test_an_earlier_stage_hands_the_replies_on(world: World) -> None:
    world.executor.gate.release()
    route = [Hop(instance_id="me", address="me:1"), world.hop(0, 0, 0)]
    reply = Reply(address="127.0.0.1:1", first=0, count=4)
    world.arrive_rows(0, 4, route=route, place=0, replies=[reply])
    run = (await world.following.next()).run_stage
    assert (run.stage, run.first, run.count, list(run.replies)) == (1, 0, 0, [reply])


async def test_an_executor_that_overlaps_gets_the_next_batch_while_one_computes(
    world: World,
) -> None:
    device = Device()
    with ThreadPoolExecutor(1) as compute:
        world.performer._computing = new_computing(device, compute)
        for batch in range(4):
            world.arrive(batch, samples=batch + 1)
        async with asyncio.timeout(5):
            while device.launched != [0, 1] or len(device.copied) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert device.copied == [1, 2, 3, 4]  # and no batch is computed yet
        for batch in range(4):
            assert not device.computed[batch].is_set()
            device.computed[batch].set()
            report = await world.frontend.next_report()
            assert (report.batch_id, report.outcome) == (batch, StageReport.DONE)
            assert report.compute_us == batch  # as the device says
            assert report.waited_us >= 0
        assert not world.performer._held


async def test_a_batch_given_up_after_it_was_copied_in_is_forgotten(world: World) -> None:
    device = Device()
    with ThreadPoolExecutor(1) as compute:
        world.performer._computing = new_computing(device, compute)
        world.arrive(0, samples=1)
        world.arrive(1, samples=2)
        world.arrive(2, samples=3, sequence=2)
        async with asyncio.timeout(5):
            while len(device.copied) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        cancel = FrameHeader(cancel=CancelBatch(batch_id=2))
        world.performer.on_frame("frontend", cancel, [])
        assert (await world.frontend.next_report()).outcome == StageReport.ABANDONED
        for event in device.computed:
            event.set()
        for batch in range(2):
            assert (await world.frontend.next_report()).batch_id == batch
        assert not world.performer._held

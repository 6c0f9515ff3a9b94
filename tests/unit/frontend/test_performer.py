"""The performer against scripted links: what is sent, and what comes of what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import pytest_asyncio

from frontend.performer import Performer
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import BatchId, InstanceId, ModelName, PipelineId, RequestId
from penstock.domain.requests import DropReason, Slice
from penstock.rpc.frames import tensors_of
from penstock.rpc.links import LinkReceiver, LinkServer
from penstock.scheduling.effects import (
    CancelBatch,
    CompleteRequest,
    DropRequest,
    Hop,
    PartHop,
    RunBatch,
    WakeAt,
)
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    InstanceLost,
    StageFinished,
)
from protos.link_pb2 import BatchResult, FrameHeader, StageReport, TensorHeader
from tests.support.fleet import FakePayloads, Inbox, a_performer, fp32

FIRST, SECOND = InstanceId("p0/0"), InstanceId("p1/0")
SLICES = (Slice(RequestId(5), 0, 2),)
NOW_US = 1_000


@dataclass
class World:
    """A performer, and an instance's end of its link."""

    performer: Performer
    payloads: FakePayloads
    inbox: Inbox
    servers: tuple[LinkServer, LinkServer]
    sent: asyncio.Queue[tuple[FrameHeader, list[bytes]]] = field(default_factory=asyncio.Queue)
    overruns: list[tuple[str, int]] = field(default_factory=list)

    def take(self, _: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        self.sent.put_nowait((header, [bytes(each) for each in views]))

    async def next_frame(self) -> tuple[FrameHeader, list[bytes]]:
        return await asyncio.wait_for(self.sent.get(), 5)

    def report(self, outcome: StageReport.Outcome, **fields: object) -> None:
        report = StageReport(batch_id=7, instance_id=FIRST, outcome=outcome, **fields)  # type: ignore[arg-type]
        self.performer.on_frame(FIRST, FrameHeader(report=report), [])

    def part(self, first: int, count: int, batch: int = 7) -> None:
        head = TensorHeader(name="y", datatype="UINT8", shape=[count], byte_size=count)
        result = BatchResult(batch_id=batch, tensors=[head], first=first, count=count)
        self.performer.on_frame(SECOND, FrameHeader(result=result), [memoryview(bytes(count))])

    def result(self, batch: int = 7, report: StageReport | None = None) -> None:
        head = TensorHeader(name="y", datatype="FP32", shape=[2, 1], byte_size=8)
        header = FrameHeader(result=BatchResult(batch_id=batch, tensors=[head], report=report))
        self.performer.on_frame(SECOND, header, [memoryview(bytes(8))])


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    payloads, inbox = FakePayloads(inputs=[fp32("x", 2, 1)]), Inbox()
    servers = (LinkServer("127.0.0.1"), LinkServer("127.0.0.1"))
    overruns: list[tuple[str, int]] = []
    performer = a_performer(
        payloads,
        inbox.post,
        lambda: NOW_US,
        "frontend:1",
        overran=lambda instance, us: overruns.append((instance, us)),
    )
    result = World(performer, payloads, inbox, servers, overruns=overruns)
    for server in servers:
        await server.start(LinkReceiver(result.take, lambda _: None))
    yield result
    await performer.close()
    for server in servers:
        await server.stop()


async def connected(world: World) -> World:
    for instance, server in zip((FIRST, SECOND), world.servers, strict=True):
        await world.performer.connect(instance, server.address)
    return world


def a_run(batch: int = 7) -> RunBatch:
    return RunBatch(
        batch=BatchId(batch),
        model=ModelName("m"),
        pipeline=PipelineId("m.0"),
        route=(
            Hop(instance=FIRST, start_us=900, end_us=2_000, sequence=3),
            Hop(instance=SECOND, start_us=2_500, end_us=4_000, sequence=9),
        ),
        slices=SLICES,
        abandon_us=51_000,
        completion_us=5_000,
    )


def a_cut_run() -> RunBatch:
    """Five rows: in parts of 2, 2, 1 on the first stage, of 3 and 2 on the last."""
    parts = [(0, 0, 2), (0, 2, 2), (0, 4, 1), (1, 0, 3), (1, 3, 2)]
    return replace(
        a_run(),
        route=tuple(
            PartHop(
                instance=SECOND if stage else FIRST,
                start_us=2_500,
                end_us=4_000,
                sequence=place,
                stage=stage,
                first=first,
                count=count,
            )
            for place, (stage, first, count) in enumerate(parts)
        ),
        slices=(Slice(RequestId(5), 0, 3), Slice(RequestId(6), 4, 2)),
    )


async def test_the_parts_of_the_first_stage_leave_one_by_one(world: World) -> None:
    await connected(world)
    world.performer.perform(a_cut_run())
    assert world.payloads.gathered == [
        (Slice(RequestId(5), 0, 2),),
        (Slice(RequestId(5), 2, 1), Slice(RequestId(6), 4, 1)),
        (Slice(RequestId(6), 5, 1),),
    ]
    runs = [(await world.next_frame())[0].run_stage for _ in range(3)]
    assert [(run.stage, run.samples, run.first, run.count) for run in runs] == [
        (0, 5, 0, 2),
        (1, 5, 2, 2),
        (2, 5, 4, 1),
    ]
    assert [(hop.stage, hop.first, hop.count) for hop in runs[2].route] == [
        *((0, 0, 2), (0, 2, 2), (0, 4, 1)),
        *((1, 0, 3), (1, 3, 2)),
    ]


async def test_a_cut_batch_is_back_when_all_parts_are(world: World) -> None:
    await connected(world)
    world.performer.perform(a_cut_run())
    world.part(3, 2)
    world.part(3, 2)
    assert world.inbox.events == []
    world.part(0, 3)
    assert world.inbox.events == [BatchFinished(BatchId(7))]
    assert world.payloads.scattered_to == [
        (Slice(RequestId(6), 4, 2),),
        (Slice(RequestId(5), 0, 3),),
    ]
    world.part(0, 3)
    assert world.inbox.events == [BatchFinished(BatchId(7))]


async def test_of_a_cancelled_cut_batch_only_reports_are_told(world: World) -> None:
    await connected(world)
    world.performer.perform(a_cut_run())
    world.performer.perform(CancelBatch(BatchId(7), (FIRST, SECOND)))
    world.part(0, 3)
    world.part(3, 2)
    assert (world.inbox.events, world.payloads.scattered) == ([], [])


async def test_a_part_that_cannot_be_sent_keeps_the_others_back(world: World) -> None:
    await connected(world)
    world.performer.disconnect(SECOND)
    world.performer.perform(a_cut_run())
    assert world.inbox.events == [InstanceLost(SECOND)]
    assert world.payloads.gathered == []


async def test_a_batch_leaves_with_its_route_as_durations(world: World) -> None:
    await connected(world)
    world.payloads.inputs = [fp32("x", 2, 1, b"abcdefgh")]
    world.performer.perform(a_run())
    header, (data,) = await world.next_frame()
    run = header.run_stage
    assert (run.batch_id, run.model, run.samples, run.stage) == (7, "m", 2, 0)
    assert [(hop.instance_id, hop.start_in_us, hop.sequence) for hop in run.route] == [
        (FIRST, 0, 3),
        (SECOND, 1_500, 9),
    ]
    assert [hop.address for hop in run.route] == [each.address for each in world.servers]
    assert (run.reply_to, run.abandon_in_us) == ("frontend:1", 50_000)
    (tensor,) = tensors_of(run.tensors, [memoryview(data)])
    assert (tensor.name, tensor.shape, bytes(tensor.data)) == ("x", (2, 1), b"abcdefgh")


async def test_results_are_scattered_before_the_dispatcher_hears(world: World) -> None:
    await connected(world)
    world.performer.perform(a_run())
    world.report(StageReport.DONE, stage=0, compute_us=1_234, overrun_us=56)
    last = StageReport(batch_id=7, stage=1, outcome=StageReport.DONE, compute_us=99)
    world.result(report=last)
    assert world.inbox.events == [
        StageFinished(batch=BatchId(7), stage=0, compute_us=1_234),
        StageFinished(batch=BatchId(7), stage=1, compute_us=99),
        BatchFinished(BatchId(7)),
    ]
    assert [tensor.name for tensor in world.payloads.scattered[0]] == ["y"]
    assert world.overruns == [(FIRST, 56)]


async def test_no_request_is_answered_twice(world: World) -> None:
    await connected(world)
    world.performer.perform(a_run())
    world.result()
    world.result()
    world.result(batch=99)
    assert len(world.payloads.scattered) == 1


async def test_a_cancelled_batch_reaches_no_request(world: World) -> None:
    await connected(world)
    world.performer.perform(a_run())
    await world.next_frame()
    world.performer.perform(CancelBatch(BatchId(7), (FIRST, InstanceId("gone"))))
    header, _ = await world.next_frame()
    assert header.cancel.batch_id == 7
    world.result()
    assert world.payloads.scattered == []
    assert world.inbox.events == [BatchFinished(BatchId(7))]  # frees what is still booked


async def test_a_sender_that_loses_an_instance_the_batch_has_left_fails_nothing(
    world: World,
) -> None:
    (await connected(world)).performer.perform(a_run())
    world.report(StageReport.DONE, stage=1)
    world.report(StageReport.FAILED, stage=1, detail="link lost", retriable=True)
    world.result()
    assert [type(each) for each in world.inbox.events] == [StageFinished, BatchFinished]


async def test_failures_say_whether_another_try_may_help(world: World) -> None:
    await connected(world)
    for outcome, retriable in (
        (StageReport.ABANDONED, False),
        (StageReport.FAILED, False),
        (StageReport.FAILED, True),
        (StageReport.OUTCOME_UNSPECIFIED, False),
    ):
        world.report(outcome, detail="why", retriable=retriable)
    assert all(isinstance(each, BatchFailed) for each in world.inbox.events)
    assert [
        (each.too_late, each.retriable)
        for each in world.inbox.events
        if isinstance(each, BatchFailed)
    ] == [(True, False), (False, False), (False, True), (False, False)]


async def test_outputs_that_do_not_fit_fail_the_batch(world: World) -> None:
    await connected(world)

    world.performer.perform(a_run())
    world.payloads.refusal = InvalidInput("stage result", "y", "2 rows", "3")
    world.result()
    (failed,) = world.inbox.events
    assert isinstance(failed, BatchFailed)
    assert "expected 2 rows, found 3" in failed.detail
    assert not failed.retriable


async def test_a_lost_link_is_a_lost_instance(world: World) -> None:
    await connected(world)
    for server in world.servers:
        await server.stop()
    await world.inbox.count(InstanceLost, 2)
    assert {each.instance for each in world.inbox.of(InstanceLost)} == {FIRST, SECOND}
    world.performer.perform(a_run())
    assert world.inbox.events[-1] == InstanceLost(FIRST)


async def test_an_instance_that_drops_its_own_link_is_lost(world: World) -> None:
    await connected(world)
    world.performer.on_peer_lost(SECOND)
    world.performer.on_peer_lost("stranger")
    await world.inbox.count(InstanceLost)
    assert world.inbox.events == [InstanceLost(SECOND)]


async def test_disconnecting_and_reconnecting_is_no_loss(world: World) -> None:
    await connected(world)
    first, second = world.servers
    await world.performer.connect(FIRST, first.address)
    world.performer.disconnect(SECOND)
    await world.performer.connect(SECOND, second.address)
    world.performer.perform(a_run())
    await world.next_frame()
    assert world.inbox.events == []


async def test_ends_of_requests_go_to_the_payloads(world: World) -> None:
    ends: list[CompleteRequest | DropRequest] = [
        CompleteRequest(RequestId(1), met_deadline=True),
        DropRequest(RequestId(2), DropReason.SHED),
    ]
    for each in ends:
        world.performer.perform(each)
    world.performer.perform(WakeAt(5))
    assert world.payloads.ended == ends


async def test_frames_a_frontend_does_not_take_are_ignored(world: World) -> None:
    world.performer.on_frame(FIRST, FrameHeader(), [])
    assert world.inbox.events == []

"""Batches of several acceptors: who is told what, and what the dispatcher hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from frontend.acceptors.couriers import AcceptorCouriers
from frontend.acceptors.peers import Peer
from frontend.performer import Performer
from penstock.aio.clock import MonotonicClock
from penstock.aio.driver import Driver
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import (
    BatchId,
    InstanceId,
    ModelName,
    PipelineId,
    RequestId,
    ServerId,
)
from penstock.domain.requests import DropReason, Slice
from penstock.policies import batching_policy, routing_policy
from penstock.rpc.links import LinkReceiver, LinkServer
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.effects import CompleteRequest, DropRequest, Effect, Hop, RunBatch
from penstock.scheduling.events import (
    BatchFailed,
    BatchFinished,
    InstanceJoined,
    InstanceLost,
    PlanApplied,
    RequestArrived,
    RequestCancelled,
    StageFinished,
)
from penstock.scheduling.invariants import validate
from protos import acceptors_pb2 as pb
from protos.link_pb2 import FrameHeader, StageReport
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.fleet import Inbox
from tests.support.notices import Wire

INSTANCE, BATCH = InstanceId("p0/0"), BatchId(7)


@dataclass
class World:
    """Couriers with their performer, one instance, and two acceptors: of three requests each."""

    couriers: AcceptorCouriers
    performer: Performer
    inbox: Inbox
    frames: asyncio.Queue[FrameHeader] = field(default_factory=asyncio.Queue)
    peers: list[Peer] = field(default_factory=list)
    address: str = ""

    def enter(self) -> Peer:
        peer = Peer(len(self.peers), Wire(), link=f"acceptor:{len(self.peers)}")
        self.peers.append(peer)
        self.couriers.enter(peer)
        return peer

    def ask(self, peer: Peer, own: int, samples: int = 2) -> None:
        arrived = pb.RequestArrival(request=own, model="m", samples=samples, deadline_us=9)
        self.couriers.hear(peer, pb.Notice(arrived=arrived))

    def wire(self, peer: int) -> Wire:
        stream = self.peers[peer].stream
        assert isinstance(stream, Wire)
        return stream

    def run(self, *slices: tuple[int, int, int]) -> None:
        self.performer.perform(
            RunBatch(
                batch=BATCH,
                model=ModelName("m"),
                pipeline=PipelineId("m.0"),
                route=(Hop(instance=INSTANCE, start_us=0, end_us=5, sequence=0),),
                slices=tuple(Slice(RequestId(r), first, count) for r, first, count in slices),
                abandon_us=1_000,
                completion_us=5,
            )
        )

    def delivered(self, peer: int) -> None:
        self.couriers.hear(self.peers[peer], pb.Notice(delivered=BATCH))

    async def next_frame(self) -> FrameHeader:
        return await asyncio.wait_for(self.frames.get(), 5)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    inbox = Inbox()
    couriers = AcceptorCouriers(inbox.post)
    performer = Performer(lambda one: couriers.hired_by(one, ""), inbox.post)
    world = World(couriers, performer, inbox)

    def take(_: str, header: FrameHeader, _views: Sequence[memoryview]) -> None:
        if header.WhichOneof("kind") in ("run_stage", "cancel"):
            world.frames.put_nowait(header)

    server = LinkServer("127.0.0.1")
    await server.start(LinkReceiver(take, lambda _: None))
    for peer in (world.enter(), world.enter()):
        for own in range(3):
            world.ask(peer, own)
    world.address = server.address
    await performer.connect(INSTANCE, server.address)
    inbox.events.clear()
    yield world
    await performer.close()
    await server.stop()


async def test_each_acceptor_numbers_its_own_requests(world: World) -> None:
    world.ask(world.peers[0], 3)
    world.ask(world.peers[1], 3)
    arrivals = world.inbox.of(RequestArrived)
    assert [each.request.id for each in arrivals] == [6, 7]
    with pytest.raises(InvalidInput, match="a new number, found 3"):
        world.ask(world.peers[0], 3)


async def test_every_outcome_goes_to_who_holds_the_request(world: World) -> None:
    world.performer.perform(CompleteRequest(RequestId(4), met_deadline=True))
    world.performer.perform(DropRequest(RequestId(2), DropReason.SHED, "full"))
    assert world.wire(1).last("answered") == pb.RequestAnswered(request=1, met_deadline=True)
    dropped = pb.RequestDropped(request=2, reason="shed", detail="full")
    assert world.wire(0).last("dropped") == dropped
    assert len(world.couriers.requests) == 4
    world.couriers.hear(world.peers[1], pb.Notice(cancelled=1))  # it came too late
    world.couriers.hear(world.peers[1], pb.Notice(cancelled=0))
    assert world.inbox.events == [RequestCancelled(RequestId(3))]


async def test_each_acceptor_has_one_stretch_of_a_mixed_batch(world: World) -> None:
    world.run((0, 0, 2), (3, 1, 1), (1, 0, 2), (4, 0, 2))
    first, second = (world.wire(number).last("errand") for number in (0, 1))
    assert isinstance(first, pb.Errand)
    assert isinstance(second, pb.Errand)
    found = [
        (errand.first, [(each.request, each.first, each.count) for each in errand.slices])
        for errand in (first, second)
    ]
    assert found == [(0, [(0, 0, 2), (1, 0, 2)]), (4, [(0, 1, 1), (1, 0, 2)])]
    replies = [(each.address, each.first, each.count) for each in first.replies]
    assert replies == [("acceptor:0", 0, 4), ("acceptor:1", 4, 3)]
    assert list(second.replies) == list(first.replies)
    assert (first.samples, second.samples) == (7, 7)


async def test_a_batch_is_back_when_every_acceptor_has_its_rows(world: World) -> None:
    world.run((0, 0, 2), (3, 0, 2))
    report = StageReport(batch_id=BATCH, outcome=StageReport.DONE, compute_us=5)
    world.couriers.hear(world.peers[1], pb.Notice(reported=report))
    world.delivered(1)
    world.delivered(1)
    assert world.inbox.events == [StageFinished(batch=BATCH, stage=0, compute_us=5)]
    world.delivered(0)
    assert world.inbox.events[1:] == [BatchFinished(BATCH)]


async def test_a_lost_acceptor_takes_its_requests_with_it_and_no_others(world: World) -> None:
    world.run((0, 0, 2), (3, 0, 2))
    world.delivered(0)
    world.couriers.leave(world.peers[0])
    *cancelled, failed = world.inbox.events
    assert cancelled == [RequestCancelled(RequestId(number)) for number in range(3)]
    assert isinstance(failed, BatchFailed)
    assert (failed.batch, failed.retriable) == (BATCH, True)
    assert world.wire(1).last("forgotten") == BATCH
    assert (await world.next_frame()).cancel.batch_id == BATCH
    assert len(world.couriers.requests) == 3
    world.delivered(1)  # of the batch that failed: it reaches no request any more
    assert world.inbox.events[-1] == BatchFinished(BATCH)


async def test_a_batch_that_is_lost_with_its_only_acceptor_says_nothing_to_others(
    world: World,
) -> None:
    world.run((3, 0, 2))
    world.couriers.leave(world.peers[1])
    assert "forgotten" not in world.wire(0).kinds()


async def test_a_fault_at_one_acceptor_fails_the_batch_for_all(world: World) -> None:
    world.run((0, 0, 2), (3, 0, 2))
    fault = pb.BatchFault(batch=BATCH, detail="link full", retriable=True)
    world.couriers.hear(world.peers[0], pb.Notice(failed=fault))
    (failed,) = world.inbox.events
    assert failed == BatchFailed(batch=BATCH, detail="link full", retriable=True)
    assert world.wire(1).last("forgotten") == BATCH
    assert (await world.next_frame()).cancel.batch_id == BATCH


async def test_an_acceptor_that_comes_later_is_told_what_there_is(world: World) -> None:
    joined = pb.JoinedInstance(instance=INSTANCE, address=world.address)
    assert world.wire(0).last("joined") == joined
    world.enter()
    assert world.wire(2).last("joined") == joined
    world.performer.disconnect(INSTANCE)
    lost = pb.LostInstance(instance=INSTANCE, address=world.address)
    assert [world.wire(number).last("parted") for number in range(3)] == [lost] * 3
    world.enter()
    assert world.wire(3).sent == []


async def test_an_instance_that_an_acceptor_cannot_reach_is_lost(world: World) -> None:
    elsewhere = pb.LostInstance(instance=INSTANCE, address="elsewhere:1")
    world.couriers.hear(world.peers[0], pb.Notice(unreachable=elsewhere))
    assert world.inbox.events == []
    lost = pb.LostInstance(instance=INSTANCE, address=world.address)
    world.couriers.hear(world.peers[0], pb.Notice(unreachable=lost))
    assert world.inbox.events == [InstanceLost(INSTANCE)]
    assert world.wire(1).last("parted") == lost


async def test_what_a_lost_acceptor_had_booked_is_free_at_once(world: World) -> None:
    """Of five batches three are of one acceptor alone; what is left is launched without a wait."""
    dispatcher = Dispatcher(batching_policy("reservation"), routing_policy("least-queueing"))

    def perform(effect: Effect) -> None:
        performer.perform(effect)

    driver = Driver(dispatcher, MonotonicClock(), perform)
    couriers = AcceptorCouriers(driver.post)
    performer = Performer(lambda one: couriers.hired_by(one, ""), driver.post)
    world.couriers, world.peers = couriers, []
    doomed, other = world.enter(), world.enter()
    pool = a_pool("p0", latencies_us=(2_000_000,))
    driver.post(PlanApplied(a_plan(a_model_plan((pool,), slo_us=60_000_000))))
    await performer.connect(INSTANCE, world.address)
    joined = {"instance": INSTANCE, "model": ModelName("m"), "pool": pool.id}
    driver.post(InstanceJoined(**joined, server=ServerId("s")))  # type: ignore[arg-type]
    late_us = 60_000_000
    for peer in (doomed, doomed, other, doomed, other):
        arrived = pb.RequestArrival(request=len(peer.requests), model="m", samples=1)
        arrived.deadline_us = late_us
        couriers.hear(peer, pb.Notice(arrived=arrived))
    assert "errand" in world.wire(0).kinds()
    assert "errand" not in world.wire(1).kinds()  # the instance is booked
    couriers.leave(doomed)
    assert world.wire(1).kinds().count("errand") == 1
    assert len(couriers.requests) == 2
    validate(dispatcher)
    driver.close()
    await performer.close()

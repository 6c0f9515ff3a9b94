"""Membership with scripted workers: slots, spares, loss, names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction

from frontend.membership import InstanceState, Member, Membership
from penstock.domain.ids import InstanceId, ModelName, PoolId, ServerId
from penstock.domain.plan import Plan
from penstock.rpc.links import LinkLost
from penstock.scheduling.events import Event, InstanceJoined, InstanceLost
from protos.control_pb2 import (
    Heartbeat,
    InstanceGone,
    InstanceReady,
    LoadInstance,
    ObtainedShare,
    WorkerCommand,
    WorkerHello,
    WorkerMessage,
)
from tests.support.builders import a_model_plan, a_plan, a_pool


@dataclass
class FakeLinks:
    open: dict[InstanceId, str] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)

    async def connect(self, instance: InstanceId, address: str) -> None:
        if address in self.unreachable:
            raise LinkLost(f"link to {address}: no answer")
        self.open[instance] = address

    def disconnect(self, instance: InstanceId) -> None:
        self.open.pop(instance, None)


@dataclass
class World:
    membership: Membership
    links: FakeLinks
    events: list[Event]

    def enter(self, name: str, gpu_class: str = "fast") -> Member:
        hello = WorkerHello(
            worker_id=name, gpu_class=gpu_class, server=f"host-{name}", executor="emulated"
        )
        member = self.membership.enter(hello)
        assert isinstance(member, Member)
        return member

    async def ready(self, member: Member, instance: str, address: str = "there:1") -> None:
        ready = InstanceReady(instance_id=instance, address=address, process_id=7, load_us=9)
        self.membership.hear(member, WorkerMessage(ready=ready))
        for _ in range(3):
            await asyncio.sleep(0)

    def gone(self, member: Member, instance: str, *, load_failed: bool = False) -> None:
        gone = InstanceGone(instance_id=instance, reason="why", load_failed=load_failed)
        self.membership.hear(member, WorkerMessage(gone=gone))

    def states(self) -> dict[str, list[InstanceState]]:
        return {
            each.worker: [one.state for one in each.instances]
            for each in self.membership.snapshot()
        }


def one_pool(instances: int = 1, share: Fraction = Fraction(1)) -> Plan:
    return a_plan(a_model_plan((a_pool("p0", instances=instances, share=share),)))


def a_world(plan: Plan) -> World:
    links, events = FakeLinks(), list[Event]()
    membership = Membership(
        plan,
        versions={ModelName("m"): "3", ModelName("n"): "4"},
        frontend_link="frontend:1",
        links=links,
        post=events.append,
        heartbeat_us=250_000,
    )
    return World(membership, links, events)


def commands(member: Member) -> list[WorkerCommand | None]:
    return [member.commands.get_nowait() for _ in range(member.commands.qsize())]


def loads(member: Member) -> list[LoadInstance]:
    return [each.load for each in commands(member) if each is not None and each.HasField("load")]


async def test_a_worker_is_told_to_load_its_slot_and_joins_when_ready() -> None:
    world = a_world(one_pool())
    member = world.enter("a")
    welcome, load = commands(member)
    assert welcome is not None
    assert load is not None
    assert welcome.welcome.heartbeat_interval_us == 250_000
    assert (load.load.instance_id, load.load.version) == ("p0/0", "3")
    assert (load.load.first_block, load.load.end_block, load.load.batch) == (0, 1, 4)
    assert list(load.load.latency_us_by_batch) == [10_000, 12_000, 14_000, 16_000]
    assert (load.load.share_numerator, load.load.share_denominator) == (1, 1)
    assert load.load.frontend_link == "frontend:1"
    assert not world.membership.complete
    await world.ready(member, "p0/0")
    assert world.events == [
        InstanceJoined(
            instance=InstanceId("p0/0"),
            model=ModelName("m"),
            pool=PoolId("p0"),
            server=ServerId("host-a"),
        )
    ]
    assert world.links.open == {InstanceId("p0/0"): "there:1"}
    assert world.membership.complete
    assert world.membership.emulated


async def test_instances_that_share_a_gpu_go_to_one_worker() -> None:
    world = a_world(one_pool(instances=3, share=Fraction(1, 2)))
    assert world.membership.missing() == {"fast": 2}
    assert [len(loads(world.enter(name))) for name in ("a", "b", "c")] == [2, 1, 0]
    assert world.membership.missing() == {}


async def test_a_worker_loads_instances_of_all_models_on_its_gpu() -> None:
    half, names = Fraction(1, 2), ("m", "n")
    models = [a_model_plan([a_pool(name, share=half)], model=ModelName(name)) for name in names]
    world = a_world(a_plan(*models, packing="whole-gpu"))
    member = world.enter("a")
    told = [(each.instance_id, each.model, each.version) for each in loads(member)]
    assert told == [("m/0", "m", "3"), ("n/0", "n", "4")]
    for name in names:
        await world.ready(member, f"{name}/0")
    assert world.membership.complete
    world.membership.leave(member, "gone")
    assert [type(each) for each in world.events] == [InstanceJoined] * 2 + [InstanceLost] * 2
    assert world.membership.missing() == {"fast": 1}


async def test_a_lost_worker_loses_its_instances_and_a_spare_takes_over_at_once() -> None:
    world = a_world(one_pool())
    first, spare = world.enter("a"), world.enter("b")
    await world.ready(first, "p0/0")
    assert loads(spare) == []
    world.membership.leave(first, "gone")
    assert world.events[1:] == [InstanceLost(InstanceId("p0/0"))]
    assert world.links.open == {}
    assert [each.instance_id for each in loads(spare)] == ["p0/0"]
    assert commands(first)[-1] is None
    world.membership.leave(first, "again")
    await world.ready(spare, "p0/0")
    assert isinstance(world.events[-1], InstanceJoined)


async def test_a_spare_of_another_class_does_not_fit() -> None:
    slow = a_pool("p1", gpu_class="slow", position=1, blocks=(1, 2))
    world = a_world(a_plan(a_model_plan((a_pool("p0"), slow))))
    first, other = world.enter("a"), world.enter("b", "slow")
    spare = world.enter("c", "slow")
    world.membership.leave(first, "gone")
    assert [len(loads(each)) for each in (other, spare)] == [1, 0]
    assert world.membership.missing() == {"fast": 1}


async def test_an_unknown_class_and_an_empty_name_are_refused_in_words() -> None:
    world = a_world(one_pool())
    refusal = world.membership.enter(WorkerHello(worker_id="a", gpu_class="H900"))
    assert refusal == "the plan knows no GPU class 'H900'; it knows fast"
    assert world.membership.enter(WorkerHello(gpu_class="fast")) == "a worker needs a name"
    assert world.membership.snapshot() == ()


async def test_a_worker_of_the_same_name_takes_over_and_the_older_is_told() -> None:
    world = a_world(one_pool())
    older = world.enter("a")
    await world.ready(older, "p0/0")
    newer = world.enter("a")
    *_, refused, end = commands(older)
    assert refused is not None
    assert refused.refused.reason == "another worker is called 'a'"
    assert end is None
    assert world.events[1:] == [InstanceLost(InstanceId("p0/0"))]
    assert len(loads(newer)) == 1
    world.membership.leave(older, "late")
    await world.ready(older, "p0/0")
    assert world.states() == {"a": [InstanceState.LOADING]}


async def test_a_crashed_instance_is_lost_and_joins_again_when_ready() -> None:
    world = a_world(one_pool())
    member = world.enter("a")
    await world.ready(member, "p0/0")
    world.gone(member, "p0/0")
    assert world.states() == {"a": [InstanceState.CRASHED]}
    await world.ready(member, "p0/0", "there:2")
    assert [type(each) for each in world.events] == [InstanceJoined, InstanceLost, InstanceJoined]
    assert world.links.open == {InstanceId("p0/0"): "there:2"}


async def test_what_one_worker_cannot_load_a_spare_is_asked_for() -> None:
    world = a_world(one_pool())
    member = world.enter("a")
    world.gone(member, "p0/0", load_failed=True)
    (status,) = world.membership.snapshot()
    assert status.instances[0].state is InstanceState.FAILED
    assert status.instances[0].detail == "why"
    spare = world.enter("b")
    assert loads(spare) == []  # it came later: the seat is taken
    world.gone(member, "p0/0", load_failed=True)
    assert len(loads(spare)) == 1
    unload = commands(member)[-1]
    assert unload is not None
    assert unload.unload.instance_id == "p0/0"
    world.gone(spare, "p0/0", load_failed=True)
    assert world.states() == {"a": [], "b": [InstanceState.FAILED]}  # nobody is asked twice


async def test_an_unreachable_instance_is_tried_until_it_is_gone() -> None:
    world = a_world(one_pool())
    member = world.enter("a")
    world.links.unreachable.add("there:1")
    await world.ready(member, "p0/0")
    assert world.events == []
    (status,) = world.membership.snapshot()
    assert "--host" in status.instances[0].detail
    await world.ready(member, "p0/0", "there:2")
    assert world.membership.complete
    world.membership.close()


async def test_words_about_instances_of_others_are_ignored() -> None:
    world = a_world(one_pool())
    first, spare = world.enter("a"), world.enter("b")
    await world.ready(first, "p0/0")
    await world.ready(spare, "p0/0", "elsewhere:1")
    world.gone(spare, "p0/0")
    world.gone(first, "nonsense")
    world.membership.hear(first, WorkerMessage(heartbeat=Heartbeat()))
    world.membership.hear(first, WorkerMessage())
    assert world.links.open == {InstanceId("p0/0"): "there:1"}
    assert len(world.events) == 1


async def test_what_a_worker_says_of_its_shares_is_shown() -> None:
    world = a_world(one_pool())
    hello = WorkerHello(
        worker_id="w",
        gpu_class="fast",
        server="s",
        executor="cuda",
        share="green",
        share_note="groups of 8 of 132 SMs",
        process_per="device",
    )
    member = world.membership.enter(hello)
    assert isinstance(member, Member)
    share = ObtainedShare(mechanism="green", sms=64, device_sms=132)
    ready = InstanceReady(instance_id="p0/0", address="there:1", share=share)
    world.membership.hear(member, WorkerMessage(ready=ready))
    (worker,) = world.membership.snapshot()
    assert worker.share == "green (groups of 8 of 132 SMs), a process per device"
    assert worker.instances[0].share == "64 of 132 SMs by green"
    world.membership.close()

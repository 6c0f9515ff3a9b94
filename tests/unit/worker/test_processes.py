"""Which process has which instance, and whose the shares are; keepers are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from penstock.domain.errors import StageLoadFailed
from penstock.rpc.links import Neighbours
from penstock.shares.base import ShareOrder, ShareUnavailable
from penstock.shares.driver import Driver
from penstock.shares.held import ShareHolder
from penstock.shares.layout import split_of
from penstock.shares.mechanisms import GreenShares, Place
from protos.control_pb2 import Execution, LoadInstance, WorkerMessage
from tests.support.repositories import write_shapes_model
from tests.unit.worker.test_settings import instance_settings, some_settings
from worker import processes as processes_module
from worker.instance import open_instance
from worker.processes import Processes
from worker.settings import InstanceSettings, RestartSettings


class FakeKeeper:
    def __init__(
        self, environment: Mapping[str, str], restart: RestartSettings, tell: object
    ) -> None:
        self.environment = environment
        self.wanted: dict[str, InstanceSettings] = {}
        self.removed: list[str] = []
        self.ends = asyncio.Event()
        self.cancelled = False

    @property
    def instances(self) -> frozenset[str]:
        return frozenset(self.wanted)

    def add(self, settings: InstanceSettings) -> None:
        self.wanted[settings.instance] = settings

    async def remove(self, instance: str) -> None:
        self.removed.append(instance)
        del self.wanted[instance]

    async def run(self) -> None:
        try:
            await self.ends.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.wanted.clear()  # it has given up


@dataclass
class World:
    processes: Processes
    keepers: list[FakeKeeper] = field(default_factory=list)
    told: list[WorkerMessage] = field(default_factory=list)

    def taken(self) -> dict[str, tuple[int, ...]]:
        return {
            name: settings.share.taken
            for keeper in self.keepers
            for name, settings in keeper.wanted.items()
        }


@asynccontextmanager
async def a_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_per: str
) -> AsyncIterator[World]:
    keepers, told = list[FakeKeeper](), list[WorkerMessage]()

    def new_keeper(*arguments: object) -> FakeKeeper:
        keepers.append(FakeKeeper(*arguments))  # type: ignore[arg-type]
        return keepers[-1]

    async def tell(message: WorkerMessage) -> None:
        told.append(message)

    monkeypatch.setattr(processes_module, "Keeper", new_keeper)
    settings = some_settings(tmp_path, process_per=process_per, threads=3)
    place = Place(device="GPU-1", own_process=True, at_once=False)
    shares = GreenShares(place, split_of(132, 8, 8), None)
    async with asyncio.TaskGroup() as tasks:
        yield World(Processes(settings, shares, tell, tasks), keepers, told)
        for each in keepers:
            each.ends.set()


def load(instance: str, parts: int = 2) -> LoadInstance:
    return LoadInstance(
        instance_id=instance,
        model="m",
        version="1",
        end_block=2,
        batch=2,
        latency_us_by_batch=[5, 6],
        share_numerator=1,
        share_denominator=parts,
        frontend_link="there:1",
    )


LOW, HIGH = tuple(range(8)), tuple(range(8, 16))


async def test_each_instance_has_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(tmp_path, monkeypatch, "instance") as world:
        await world.processes.load(load("a"))
        await world.processes.load(load("b"))
        assert [each.instances for each in world.keepers] == [{"a"}, {"b"}]
        assert world.taken() == {"a": LOW, "b": HIGH}
        assert all(each.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1" for each in world.keepers)
        settings = world.keepers[0].wanted["a"]
        assert (settings.threads, settings.frontend_link) == (3, "there:1")
        assert settings.order.latency_us_by_batch == (5, 6)
        await asyncio.sleep(0)
        await world.processes.unload("a")
        assert [each.cancelled for each in world.keepers] == [True, False]
        await world.processes.unload("nobody")
        await world.processes.load(load("c"))
        assert world.keepers[2].wanted["c"].share.taken == LOW


async def test_one_process_has_all_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path, monkeypatch, "device") as world:
        await world.processes.load(load("a"))
        await world.processes.load(load("b"))
        (keeper,) = world.keepers
        assert world.taken() == {"a": LOW, "b": HIGH}
        await asyncio.sleep(0)
        await world.processes.unload("a")
        assert (keeper.removed, keeper.cancelled) == (["a"], False)
        await world.processes.unload("b")  # the last one takes the process with it
        assert keeper.cancelled
        await world.processes.load(load("c"))
        assert len(world.keepers) == 2


async def test_an_instance_that_is_loaded_again_is_let_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path, monkeypatch, "device") as world:
        for each in (load("a"), load("b"), load("a", parts=4)):
            await world.processes.load(each)
        (keeper,) = world.keepers
        assert keeper.removed == ["a"]
        assert world.taken() == {"a": LOW[:4], "b": HIGH}


async def test_a_process_that_was_given_up_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path, monkeypatch, "device") as world:
        await world.processes.load(load("a"))
        world.keepers[0].ends.set()
        await asyncio.sleep(0.01)
        await world.processes.load(load("b"))
        assert [each.instances for each in world.keepers] == [frozenset(), {"b"}]


@pytest.mark.parametrize("process_per", ["instance", "device"])
async def test_what_cannot_be_started_is_told_and_holds_no_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_per: str
) -> None:
    async with a_world(tmp_path, monkeypatch, process_per) as world:
        await world.processes.load(load("small", parts=20))
        odd = load("odd")
        odd.execution.CopyFrom(Execution(precision="fp7"))
        await world.processes.load(odd)
        assert [each.gone.load_failed for each in world.told] == [True, True]
        assert "less than the smallest part" in world.told[0].gone.reason
        assert "fp7" in world.told[1].gone.reason
        assert not world.keepers
        await world.processes.load(load("a"))
        await world.processes.load(load("b"))
        assert len(world.taken()) == 2
        await world.processes.load(load("c"))
        assert "0 of 16 are free" in world.told[2].gone.reason


async def test_a_share_that_does_not_come_fails_the_load(tmp_path: Path) -> None:
    write_shapes_model(tmp_path)
    order = ShareOrder(mechanism="mps", gpu=True, denominator=2, device_sms=132)
    settings = replace(
        instance_settings(),
        executor="emulated-shapes",
        repository=str(tmp_path),
        order=replace(instance_settings().order, blocks_sha256=""),
        share=order,
    )

    def no_driver() -> Driver:
        raise ShareUnavailable("no driver here")

    with pytest.raises(StageLoadFailed, match="its share of the GPU: no driver here"):
        await open_instance(settings, ShareHolder(no_driver), Neighbours())

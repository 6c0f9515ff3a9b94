"""The process of instances, told what to do line by line; no instance needs a device."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from penstock.domain.errors import InvalidSettings, PenstockError, StageLoadFailed
from penstock.domain.execution import Computation
from penstock.shares.base import Obtained
from tests.unit.worker.test_settings import instance_settings
from worker import process as process_module
from worker.process import LOST, Instances
from worker.settings import InstanceSettings


@dataclass(eq=False)
class FakeInstance:
    name: str
    lost: asyncio.Future[str]
    port: int = 4
    load_us: int = 5
    obtained: Obtained = field(default_factory=Obtained)
    computation: Computation = field(default_factory=Computation)
    closed: bool = False

    async def close(self) -> None:
        self.closed = True


@dataclass
class World:
    """Instances, and what opening the next ones does.

    Attributes:
        slow: names that load until the event is set.
    """

    instances: Instances
    said: io.StringIO
    opened: dict[str, FakeInstance] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)
    loading: int = 0
    most_loading: int = 0

    async def open(self, settings: InstanceSettings, *_: object) -> FakeInstance:
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            if settings.instance in self.slow:
                await self.slow[settings.instance].wait()
            if settings.instance in self.failures:
                raise self.failures[settings.instance]
        finally:
            self.loading -= 1
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.opened[settings.instance] = FakeInstance(settings.instance, lost)
        return self.opened[settings.instance]

    def load(self, name: str) -> None:
        settings = replace(instance_settings(), instance=name)
        self.instances.ask(json.dumps({"load": settings.to_fields()}))

    def unload(self, name: str) -> None:
        self.instances.ask(json.dumps({"unload": name}))

    async def answers(self, count: int) -> list[dict[str, object]]:
        def lines() -> list[str]:
            return self.said.getvalue().splitlines()

        await until(lambda: len(lines()) >= count)
        return [json.loads(line) for line in lines()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # a text buffer tells no one
            await asyncio.sleep(0.001)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    said = io.StringIO()
    made = World(Instances(said), said)
    monkeypatch.setattr(process_module, "open_instance", made.open)
    monkeypatch.setattr(process_module, "keep_loaded_objects", lambda: None)
    return made


async def test_each_command_is_answered(world: World) -> None:
    world.failures["b"] = StageLoadFailed("no such file")
    world.failures["c"] = PenstockError("nobody there")
    for name in "abc":
        world.load(name)
    answers = await world.answers(3)
    assert answers[0] == {
        "instance": "a",
        "ready": {"port": 4, "load_us": 5},
        "share": {"mechanism": "none", "sms": 0, "device_sms": 0},
        "computation": answers[0]["computation"],
    }
    assert answers[1] == {"instance": "b", "failed": "no such file", "final": True}
    assert answers[2] == {"instance": "c", "failed": "nobody there", "final": False}
    world.unload("a")
    world.unload("nobody")
    assert [each["instance"] for each in (await world.answers(5))[3:]] == ["nobody", "a"]
    assert world.opened["a"].closed


async def test_one_is_loaded_at_a_time_and_unloading_another_does_not_wait(world: World) -> None:
    world.load("a")
    await world.answers(1)
    world.slow = {name: asyncio.Event() for name in "bc"}
    world.load("b")
    world.load("c")
    world.unload("b")  # after it is loaded
    world.unload("a")  # at once
    assert (await world.answers(2))[1] == {"instance": "a", "unloaded": True}
    world.slow["c"].set()
    world.slow["b"].set()
    answers = await world.answers(5)
    assert answers[2]["instance"] == "b"
    assert world.opened["b"].closed
    assert not world.opened["c"].closed
    assert world.most_loading == 1


async def test_a_lost_link_ends_the_process_unless_the_instance_was_to_go(world: World) -> None:
    running = asyncio.create_task(world.instances.run())
    world.load("a")
    world.load("b")
    await world.answers(2)
    world.unload("a")
    await world.answers(3)
    world.opened["a"].lost.set_result("a")
    await asyncio.sleep(0.01)
    assert not running.done()
    world.opened["b"].lost.set_result("b")
    assert await asyncio.wait_for(running, 5) == LOST


@pytest.mark.parametrize("line", ["nonsense", '{"load": {}}'])
async def test_what_cannot_be_read_ends_the_process(world: World, line: str) -> None:
    world.instances.ask(line)
    with pytest.raises((ValueError, InvalidSettings)):
        await asyncio.wait_for(world.instances.run(), 5)


async def test_a_bug_ends_the_process(world: World) -> None:
    world.failures["a"] = ZeroDivisionError()
    world.load("a")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(world.instances.run(), 5)

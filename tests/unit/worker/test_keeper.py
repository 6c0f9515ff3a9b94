"""The keeper with scripted children: reports, restarts, patience, several instances of one fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from penstock.domain.execution import Computation
from penstock.shares.base import Obtained
from protos.control_pb2 import WorkerMessage
from tests.unit.worker.test_settings import instance_settings
from worker import keeper as keeper_module
from worker.children import ChildCrashed, Failed, Heard, Ready, Unloaded
from worker.keeper import Keeper
from worker.settings import InstanceSettings, RestartSettings

CRASH = object()


def ready(instance: str = "p/0") -> Ready:
    return Ready(instance, 1234, 99, Obtained("green", 64, 132), Computation())


@dataclass
class Script:
    """What each child in turn says, and whether it then crashes at once."""

    lives: list[list[object]]
    told: list[WorkerMessage] = field(default_factory=list)
    children: list[FakeChild] = field(default_factory=list)
    spoken: asyncio.Event = field(default_factory=asyncio.Event)

    async def tell(self, message: WorkerMessage) -> None:
        self.told.append(message)
        self.spoken.set()

    def kinds(self) -> list[str | None]:
        return [each.WhichOneof("kind") for each in self.told]

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.told) < count:
                self.spoken.clear()
                await self.spoken.wait()


class FakeChild:
    process_id = 7

    def __init__(self, lines: list[object]) -> None:
        self._lines = lines
        self._more: asyncio.Queue[Heard | None] = asyncio.Queue()
        self.asked: list[tuple[str, str]] = []
        self.stopped = 0

    def load(self, settings: InstanceSettings) -> None:
        self.asked.append(("load", settings.instance))

    def unload(self, instance: str) -> None:
        self.asked.append(("unload", instance))

    def say(self, heard: Heard) -> None:
        self._more.put_nowait(heard)

    async def heard(self) -> AsyncIterator[Heard]:
        for line in self._lines:
            if line is CRASH:
                return
            assert isinstance(line, Ready | Failed | Unloaded)
            yield line
        while (more := await self._more.get()) is not None:
            yield more

    async def ended(self) -> str:
        return "ended by SIGKILL"

    async def stop(self) -> None:
        self.stopped += 1
        self._more.put_nowait(None)


def a_keeper(script: Script, monkeypatch: pytest.MonkeyPatch, *instances: str) -> Keeper:
    class Spawner:
        @staticmethod
        async def spawn(environment: dict[str, str]) -> FakeChild:
            assert environment == {"A": "B"}
            child = FakeChild(script.lives.pop(0))
            script.children.append(child)
            return child

    monkeypatch.setattr(keeper_module, "Child", Spawner)
    restart = RestartSettings(attempts=3, first_pause_s=0.0)
    keeper = Keeper({"A": "B"}, restart, script.tell)
    for each in instances or ("p/0",):
        keeper.add(replace(instance_settings(), instance=each))
    return keeper


async def test_a_stage_that_cannot_load_is_given_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([[Failed("p/0", "no such file", final=True)]])
    keeper = a_keeper(script, monkeypatch)
    await keeper.run()
    (message,) = script.told
    assert message.gone.load_failed
    assert message.gone.reason == "no such file"
    assert script.children[0].stopped == 1
    assert not keeper.instances


async def test_crashes_are_reported_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([[Failed("p/0", "one", final=False)], [ready(), CRASH], [CRASH]])
    await a_keeper(script, monkeypatch).run()
    assert script.kinds() == ["gone", "ready", "gone", "gone"]
    assert [each.gone.load_failed for each in script.told] == [False, False, False, True]
    assert script.told[0].gone.reason == "one"
    assert script.told[1].ready.address == "127.0.0.1:1234"
    assert script.told[1].ready.share.sms == 64
    assert script.told[2].gone.reason == "ended by SIGKILL"
    last = "ended by SIGKILL before it was ready; crashed 3 times in a row"
    assert script.told[3].gone.reason == last
    assert [each.stopped for each in script.children] == [1, 1, 1]


async def test_cancelling_stops_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([[ready()]])
    task = asyncio.create_task(a_keeper(script, monkeypatch).run())
    await script.until_told(1)
    task.cancel()
    await asyncio.wait((task,))
    assert script.children[0].stopped == 1
    assert script.kinds() == ["ready"]


async def test_instances_of_one_process_are_lost_and_come_back_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([[ready("a"), ready("b"), CRASH], [ready("b"), ready("a")]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(6)
    assert [each.gone.instance_id for each in script.told[2:4]] == ["a", "b"]
    assert not any(each.gone.load_failed for each in script.told)
    assert script.children[1].asked == [("load", "a"), ("load", "b")]
    assert keeper.instances == {"a", "b"}
    task.cancel()
    await asyncio.wait((task,))


async def test_an_instance_that_does_not_load_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([[ready("a"), Failed("b", "out of memory", final=True)]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(2)
    assert keeper.instances == {"a"}
    keeper.add(replace(instance_settings(), instance="c"))
    script.children[0].say(ready("c"))
    await script.until_told(3)
    assert script.told[2].ready.instance_id == "c"
    assert script.children[0].stopped == 0
    task.cancel()
    await asyncio.wait((task,))


async def test_one_instance_goes_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([[ready("a"), ready("b")]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(2)
    removing = asyncio.create_task(keeper.remove("a"))
    await asyncio.sleep(0)
    assert script.children[0].asked[-1] == ("unload", "a")
    assert not removing.done()
    script.children[0].say(ready("a"))  # said before it heard: nobody is told
    script.children[0].say(Unloaded("a"))
    await asyncio.wait_for(removing, 5)
    assert len(script.told) == 2
    assert (keeper.instances, script.children[0].stopped) == (frozenset({"b"}), 0)
    task.cancel()
    await asyncio.wait((task,))


async def test_a_process_that_does_not_let_go_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_UNLOAD_S", 0.01)
    script = Script([[ready("a"), ready("b")], [ready("b")]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(2)
    await keeper.remove("a")
    await script.until_told(4)
    assert script.kinds()[2:] == ["gone", "ready"]
    assert {each.gone.instance_id or each.ready.instance_id for each in script.told[2:]} == {"b"}
    assert script.children[1].asked == [("load", "b")]
    task.cancel()
    await asyncio.wait((task,))


async def test_an_instance_that_still_loads_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_UNLOAD_S", 0.01)
    script = Script([[ready("a")]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(1)
    removing = asyncio.create_task(keeper.remove("b"))
    await asyncio.sleep(0.05)
    assert not removing.done()
    script.children[0].say(ready("b"))
    script.children[0].say(Unloaded("b"))
    await asyncio.wait_for(removing, 5)
    assert (script.kinds(), script.children[0].stopped) == (["ready"], 0)
    task.cancel()
    await asyncio.wait((task,))


async def test_removing_from_a_process_that_dies_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([[ready("a"), ready("b")], [ready("b")]])
    keeper = a_keeper(script, monkeypatch, "a", "b")
    task = asyncio.create_task(keeper.run())
    await script.until_told(2)
    removing = asyncio.create_task(keeper.remove("a"))
    await asyncio.sleep(0)
    await script.children[0].stop()  # as if it had crashed
    await asyncio.wait_for(removing, 5)
    await script.until_told(4)
    assert keeper.instances == {"b"}
    task.cancel()
    await asyncio.wait((task,))


async def test_a_child_that_talks_nonsense_has_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.children import _heard

    with pytest.raises(ChildCrashed, match="the child said"):
        _heard({"instance": "a", "what": 1})


def test_pauses_double_and_are_bounded() -> None:
    restart = RestartSettings(first_pause_s=0.1, longest_pause_s=0.5)
    keeper = Keeper({}, restart, Script([]).tell)
    assert [keeper._pause_s(each) for each in (1, 2, 3, 4, 50)] == [0.1, 0.2, 0.4, 0.5, 0.5]

"""The keeper with scripted children: reports, restarts, patience."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from penstock.domain.errors import StageLoadFailed
from protos.control_pb2 import LoadInstance, WorkerMessage
from tests.unit.worker.test_settings import instance_settings
from worker import keeper as keeper_module
from worker.children import ChildCrashed, Ready, environment
from worker.keeper import Keeper
from worker.settings import RestartSettings


@dataclass
class Script:
    """What each child in turn does: the error it ends with before it is ready, or None."""

    failures: list[Exception | None]
    told: list[WorkerMessage] = field(default_factory=list)
    stopped: int = 0
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    spoken: asyncio.Event = field(default_factory=asyncio.Event)

    async def tell(self, message: WorkerMessage) -> None:
        self.told.append(message)
        self.spoken.set()

    def kinds(self) -> list[str | None]:
        return [each.WhichOneof("kind") for each in self.told]


class FakeChild:
    process_id = 7

    def __init__(self, script: Script) -> None:
        self._script = script

    async def ready(self) -> Ready:
        failure = self._script.failures.pop(0)
        if failure is not None:
            raise failure
        return Ready(1234, 99)

    async def ended(self) -> str:
        await self._script.ends.wait()
        return "ended by SIGKILL"

    async def stop(self) -> None:
        self._script.stopped += 1


def a_keeper(script: Script, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    class Spawner:
        @staticmethod
        async def spawn(*_: object) -> FakeChild:
            return FakeChild(script)

    monkeypatch.setattr(keeper_module, "Child", Spawner)
    restart = RestartSettings(attempts=3, first_pause_s=0.0)
    return Keeper(instance_settings(), LoadInstance(instance_id="p/0"), "0", restart, script.tell)


async def test_a_stage_that_cannot_load_is_given_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script([StageLoadFailed("no such file")])
    await a_keeper(script, monkeypatch).run()
    (message,) = script.told
    assert message.gone.load_failed
    assert message.gone.reason == "no such file"
    assert script.stopped == 1


async def test_crashes_are_reported_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([ChildCrashed("one"), None, ChildCrashed("three")])
    script.ends.set()
    await a_keeper(script, monkeypatch).run()
    assert script.kinds() == ["gone", "ready", "gone", "gone"]
    assert [each.gone.load_failed for each in script.told] == [False, False, False, True]
    assert script.told[1].ready.address == "127.0.0.1:1234"
    assert script.told[2].gone.reason == "ended by SIGKILL"
    assert script.told[3].gone.reason == "three; crashed 3 times in a row"
    assert script.stopped == 3


async def test_cancelling_stops_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([None])
    task = asyncio.create_task(a_keeper(script, monkeypatch).run())
    async with asyncio.timeout(5):
        await script.spoken.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert script.stopped == 1
    assert script.kinds() == ["ready"]


def test_pauses_double_and_are_bounded() -> None:
    restart = RestartSettings(first_pause_s=0.1, longest_pause_s=0.5)
    keeper = Keeper(instance_settings(), LoadInstance(), "0", restart, Script([]).tell)
    assert [keeper._pause_s(each) for each in (1, 2, 3, 4, 50)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_what_must_be_set_before_cuda_starts_is_set_for_cuda_only() -> None:
    shared = environment("cuda", "3", Fraction(1, 3))
    assert shared["CUDA_VISIBLE_DEVICES"] == "3"
    assert shared["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "33.33"
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in environment("cuda", "0", Fraction(1))
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in environment("cpu", "0", Fraction(1, 3))

"""The register of shared memory: answered when all acceptors know, undone when one cannot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from frontend.acceptors.peers import Peer
from frontend.acceptors.registrar import SpreadingRegistrar
from frontend.regions import SharedRegions
from penstock.domain.errors import InvalidRequest, PenstockError
from penstock.rpc.status import Refused
from protos import acceptors_pb2 as pb
from tests.support.frontends import eventually
from tests.support.notices import Wire

HASTY_S, PATIENT_S = 0.05, 5.0


@dataclass
class World:
    """A registrar with objects of 100 bytes to register."""

    directory: Path
    peers: dict[int, Peer] = field(default_factory=dict)

    def registrar(self, patience_s: float = PATIENT_S) -> SpreadingRegistrar:
        (self.directory / "obj").write_bytes(bytes(range(100)))
        regions = SharedRegions(4, 1_000, self.directory)
        return SpreadingRegistrar(regions, self.peers, patience_s)

    def enter(self, registrar: SpreadingRegistrar) -> Peer:
        peer = self.peers[len(self.peers)] = Peer(len(self.peers), Wire())
        registrar.enter(peer)
        return peer

    def files(self) -> int:
        """Return how many descriptors of the object this process has."""
        return sum(
            os.path.realpath(each).startswith(str(self.directory))
            for each in Path("/proc/self/fd").iterdir()
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)
    for each in Path("/proc/self/fd").iterdir():
        if os.path.realpath(each).startswith(str(tmp_path)):
            os.close(int(each.name))


def told(peer: Peer) -> list[pb.RegionChange]:
    assert isinstance(peer.stream, Wire)
    changes = (each for each in peer.stream.sent if each.HasField("region_change"))
    return [each.region_change for each in changes]


def content(region: pb.SharedRegion) -> bytes:
    return Path(region.path).read_bytes()


def makes(
    registrar: SpreadingRegistrar, peer: Peer, change: pb.RegionChange, problem: str = ""
) -> None:
    made = pb.RegionChangeMade(number=change.number, problem=problem)
    registrar.hear(peer, pb.Notice(region_change_made=made))


async def until_told(peer: Peer, changes: int) -> pb.RegionChange:
    await eventually(lambda: len(told(peer)) == changes)
    return told(peer)[-1]


async def test_a_region_is_registered_when_every_acceptor_knows_it(world: World) -> None:
    registrar = world.registrar()
    first, second = world.enter(registrar), world.enter(registrar)
    registering = asyncio.create_task(registrar.register("r", "/obj", 10, 50))
    change = await until_told(first, 2)
    (region,) = change.opened
    assert (region.name, region.key, region.offset, region.byte_size) == ("r", "/obj", 10, 50)
    assert content(region) == bytes(range(100))
    makes(registrar, first, change)
    makes(registrar, first, change)  # one acceptor is one, however often it says so
    await asyncio.sleep(0)
    assert not registering.done()
    makes(registrar, second, change)
    await registering


async def test_one_that_leaves_is_not_waited_for_and_one_that_comes_knows(world: World) -> None:
    registrar = world.registrar()
    first, second = world.enter(registrar), world.enter(registrar)
    registering = asyncio.create_task(registrar.register("r", "obj", 0, 50))
    makes(registrar, first, await until_told(first, 2))
    registrar.leave(second)
    await registering
    (change,) = told(world.enter(registrar))
    assert [each.name for each in change.opened] == ["r"]
    (world.directory / "obj").unlink()
    assert content(change.opened[0]) == bytes(range(100))


async def test_without_acceptors_nobody_is_waited_for(world: World) -> None:
    registrar = world.registrar()
    await registrar.register("r", "obj", 0, 50)
    await registrar.unregister("")
    await eventually(lambda: world.files() == 0)


async def test_what_one_acceptor_cannot_open_none_keeps(world: World) -> None:
    registrar = world.registrar()
    first, second = world.enter(registrar), world.enter(registrar)
    registering = asyncio.create_task(registrar.register("r", "obj", 0, 50))
    change = await until_told(first, 2)
    makes(registrar, first, change)
    makes(registrar, second, change, problem="no permission")
    with pytest.raises(PenstockError, match="no permission"):
        await registering
    for peer in (first, second):
        undone = told(peer)[-1]
        assert list(undone.closed) == ["r"]
        assert world.files() == 1
        makes(registrar, peer, undone)
    await eventually(lambda: world.files() == 0)


async def test_an_acceptor_that_is_silent_is_told_of_and_no_file_is_closed_before_it(
    world: World,
) -> None:
    registrar = world.registrar(HASTY_S)
    peer = world.enter(registrar)
    with pytest.raises(Refused, match="does not answer") as raised:
        await registrar.register("r", "obj", 0, 50)
    assert raised.value.status == "UNAVAILABLE"
    assert [list(each.closed) for each in told(peer)] == [[], [], ["r"]]
    assert world.files() == 1
    makes(registrar, peer, told(peer)[1])
    await asyncio.sleep(0.01)
    assert world.files() == 1
    makes(registrar, peer, told(peer)[2])
    await eventually(lambda: world.files() == 0)


async def test_what_cannot_be_is_told_to_nobody(world: World) -> None:
    registrar = world.registrar()
    await registrar.register("r", "obj", 0, 50)
    peer = world.enter(registrar)
    for name, key, size in (("r", "other", 1), ("s", "gone", 1), ("s", "obj", 101)):
        with pytest.raises(InvalidRequest):
            await registrar.register(name, key, 0, size)
    assert len(told(peer)) == 1
    assert world.files() == 1


async def test_a_silent_acceptor_does_not_let_files_pile_up(world: World) -> None:
    registrar = world.registrar(patience_s=0.001)
    peer = world.enter(registrar)
    for number in range(300):
        question = pb.Question(
            number=number, register=pb.SharedRegion(name="r", key="obj", byte_size=1)
        )
        registrar.hear(peer, pb.Notice(asked=question))
        await eventually(lambda: answers(peer) == number + 1)  # noqa: B023
    assert world.files() <= 256
    registrar.leave(peer)
    await eventually(lambda: world.files() == 0)


def answers(peer: Peer) -> int:
    assert isinstance(peer.stream, Wire)
    return sum(each.HasField("answer") for each in peer.stream.sent)

"""The register of clients' shared memory where there are acceptors: what one is told, all know.

An object is opened here, once. Acceptors open it by this process's descriptor, so that all have the
same one, whatever its name has become by then; those that start later, too. A change is answered
when every acceptor has made it, and a file is closed no sooner. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from frontend.acceptors.peers import Peer
from frontend.regions import SharedRegions
from penstock.domain.errors import PenstockError
from penstock.domain.units import Bytes
from penstock.rpc.oip_descriptions import Region
from penstock.rpc.status import Refused, error_status
from protos import acceptors_pb2 as pb

_PATIENCE_S = 10.0  # an acceptor may just be starting
_MOST_CHANGES = 256  # on their way: each may hold a file open
_SILENT = "an acceptor does not answer"


@dataclass(slots=True, eq=False)
class Change:
    """A change on its way.

    Attributes:
        waiting: numbers of the acceptors that have not made it yet.
        problem: why one could not; empty if all could so far.
        over: set when none is waited for.
    """

    waiting: set[int]
    problem: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def made(self, number: int, problem: str = "") -> None:
        """Wait no more for an acceptor: it has made the change, or is gone."""
        self.waiting.discard(number)
        self.problem = self.problem or problem
        if not self.waiting:
            self.over.set()


class SpreadingRegistrar:
    """Takes shared memory in for all acceptors.

    Args:
        regions: what is registered; nobody else may change it.
        peers: the acceptors that are there, by number, at any time.
        patience_s: how long one may take for a change.
    """

    def __init__(
        self,
        regions: SharedRegions,
        peers: Mapping[int, Peer],
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._regions = regions
        self._peers = peers
        self._patience_s = patience_s
        self._changes: dict[int, Change] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    # Acceptors come and go

    def enter(self, peer: Peer) -> None:
        """Tell an acceptor which regions there are."""
        peer.say(_notice(next(self._numbers), opened=self._regions.listed("")))

    def leave(self, peer: Peer) -> None:
        """Wait for an acceptor no more."""
        for change in self._changes.values():
            change.made(peer.number)

    def hear(self, peer: Peer, notice: pb.Notice) -> None:
        """Take what an acceptor asks or tells of regions."""
        if notice.HasField("asked"):
            self._spawn(self._answer(peer, notice.asked))
            return
        made = notice.region_change_made
        if made.number in self._changes:
            self._changes[made.number].made(peer.number, made.problem)

    # What is asked

    async def register(self, name: str, key: str, offset: Bytes, size: Bytes) -> None:
        """Take a region in; return when all acceptors know it, else none of them does.

        Raises:
            PenstockError: it cannot be taken.
        """
        region = self._regions.register(name, key, offset, size)
        change = self._spread(opened=[region])
        try:
            await self._made(change)
        except PenstockError:
            if region in self._regions.listed(""):
                self._withdraw(name)
            raise

    async def unregister(self, name: str) -> None:
        """Let go of a region, or of all if no name is given; return when all acceptors have.

        Raises:
            PenstockError: one has not yet.
        """
        await self._made(self._withdraw(name))

    async def _answer(self, peer: Peer, question: pb.Question) -> None:
        answer = pb.Answer(asked=question.number)
        try:
            await self._obey(question)
        except PenstockError as error:
            answer.status, answer.details = error_status(error).name, str(error)
        peer.say(pb.Notice(answer=answer))

    async def _obey(self, question: pb.Question) -> None:
        if len(self._changes) >= _MOST_CHANGES:
            raise Refused("UNAVAILABLE", _SILENT)
        if question.HasField("register"):
            asked = question.register
            await self.register(asked.name, asked.key, asked.offset, asked.byte_size)
        else:
            await self.unregister(question.unregister)

    # What acceptors are told

    def _withdraw(self, name: str) -> Change:
        """Have regions forgotten; their files are closed when nobody may open them any more."""
        regions = self._regions.withdraw(name)
        change = self._spread(closed=[each.name for each in regions])
        self._spawn(_close(regions, change))
        return change

    def _spread(self, opened: Sequence[Region] = (), closed: Sequence[str] = ()) -> Change:
        number = next(self._numbers)
        change = self._changes[number] = Change(set(self._peers))
        for peer in self._peers.values():
            peer.say(_notice(number, opened, closed))
        if not self._peers:
            change.over.set()
        self._spawn(self._forget(number, change))
        return change

    async def _forget(self, number: int, change: Change) -> None:
        await change.over.wait()
        del self._changes[number]

    async def _made(self, change: Change) -> None:
        """Return when a change is made everywhere.

        Raises:
            PenstockError: it is not.
        """
        try:
            await asyncio.wait_for(change.over.wait(), self._patience_s)
        except TimeoutError:
            raise Refused("UNAVAILABLE", _SILENT) from None
        if change.problem:
            raise PenstockError(change.problem)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _close(regions: Iterable[Region], change: Change) -> None:
    await change.over.wait()
    for each in regions:
        os.close(each.file)


def _notice(number: int, opened: Iterable[Region] = (), closed: Iterable[str] = ()) -> pb.Notice:
    regions = [_told(each) for each in opened]
    change = pb.RegionChange(number=number, opened=regions, closed=closed)
    return pb.Notice(region_change=change)


def _told(region: Region) -> pb.SharedRegion:
    return pb.SharedRegion(
        name=region.name,
        key=region.key,
        offset=region.offset,
        byte_size=region.size,
        path=f"/proc/{os.getpid()}/fd/{region.file}",
    )

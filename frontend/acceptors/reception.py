"""The reception of a frontend that has acceptors: starts them, tells them where things stand.

Knows the life of acceptors and what they are told of the server; what they say of requests goes to
`frontend.acceptors.couriers`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from frontend.acceptors import notices
from frontend.acceptors.couriers import AcceptorCouriers
from frontend.acceptors.keeper import Callbacks, Keeper
from frontend.acceptors.peers import Peer
from frontend.acceptors.port import reserve
from frontend.acceptors.registrar import SpreadingRegistrar
from frontend.catalogue import Catalogue
from frontend.door import GRACE_S
from frontend.regions import SharedRegions
from frontend.servicer import Refusals
from frontend.settings import Settings
from penstock.aio.loops import usual_loop
from penstock.domain.ids import ModelName
from penstock.domain.plan import Plan
from penstock.formats.plans import write_plan
from penstock.rpc.shutdown import bounded
from protos import acceptors_pb2 as pb
from protos.inference_pb2 import ModelStatisticsResponse

_END_S = 5.0  # for the last bytes of every answer, and for the processes to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """What acceptors are told and tell, beyond requests.

    Attributes:
        clock_zero_ns: of the dispatcher's clock.
        unready: says why a model is not ready; empty if it is.
        emulated: whether answers are timed by emulated devices.
        counted: what was counted of every model.
        refusals: counts the requests that got no further.
        regions: shared memory that clients may register; None: they may not.
    """

    plan: Plan
    catalogue: Catalogue
    clock_zero_ns: int
    unready: Callable[[ModelName], str]
    emulated: Callable[[], bool]
    counted: Callable[[], ModelStatisticsResponse]
    refusals: Refusals
    regions: SharedRegions | None = None


class AcceptorReception:
    """Requests come in at acceptors."""

    def __init__(self, settings: Settings, office: Office, couriers: AcceptorCouriers) -> None:
        self._settings = settings
        self._office = office
        self._couriers = couriers
        self._registrar: SpreadingRegistrar | None = None
        if office.regions is not None:
            self._registrar = SpreadingRegistrar(office.regions, couriers.peers)
        self._numbers = itertools.count()
        self._holder: socket.socket | None = None
        self._port = 0
        self._keepers: list[Keeper] = []
        self._serving = False
        self._closed = False

    @property
    def pending(self) -> int:
        """Requests accepted and not answered yet."""
        return len(self._couriers.requests)

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self._closed

    # Life

    async def listen(self) -> int:
        """Take the inference port and return it."""
        self._holder = reserve(self._settings.host, self._settings.port)
        self._port = self._holder.getsockname()[1]
        return self._port

    async def start(self) -> None:
        """Start the acceptors; return when all listen."""
        loop = usual_loop(uvloop=self._settings.uvloop)
        callbacks = Callbacks(welcome=self._welcome, hear=self._hear, leave=self._leave)
        number = self._numbers.__next__
        self._keepers = [Keeper(number, loop, callbacks) for _ in range(self._settings.acceptors)]
        try:
            await asyncio.gather(*(each.started for each in self._keepers))
        except BaseException:
            await self._kill()
            raise

    async def show(self, *, serving: bool) -> None:
        """Tell clients whether every model can be served."""
        self._serving = serving
        self._couriers.broadcast(self._standing())

    async def retire(self) -> None:
        """Let health say no, for good; acceptors that are lost now are not replaced."""
        for each in self._keepers:
            each.retire()
        await self.show(serving=False)

    def close(self) -> None:
        """Refuse every new request; those accepted go on."""
        self._closed = True
        self._couriers.broadcast(pb.Notice(closed=True))

    async def idle(self) -> None:
        """Return when every acceptor says that its requests have their outcomes."""
        await asyncio.gather(*(_idle_or_gone(each) for each in self._peers()))

    async def stop(self, insisted: asyncio.Event) -> None:
        """Let acceptors send their last answers and end."""
        self._couriers.broadcast(pb.Notice(stopped=True))
        ends = asyncio.gather(*(each.ended() for each in self._keepers))
        await bounded(_awaited(ends), GRACE_S + _END_S, insisted)
        await self._kill()

    async def _kill(self) -> None:
        await asyncio.gather(*(each.kill() for each in self._keepers))
        if self._holder is not None:
            self._holder.close()

    # What is said

    def _welcome(self, peer: Peer) -> None:
        peer.say(pb.Notice(settings=self._settings_of(peer)))
        self._couriers.enter(peer)
        if self._registrar is not None:
            self._registrar.enter(peer)
        peer.say(self._standing())  # now it lets clients in
        if self._closed:
            peer.say(pb.Notice(closed=True))

    def _leave(self, peer: Peer) -> None:
        self._couriers.leave(peer)
        if self._registrar is not None:
            self._registrar.leave(peer)

    def _hear(self, peer: Peer, notice: pb.Notice) -> None:
        match notice.WhichOneof("kind"):
            case "listening":
                peer.link = notice.listening.link
                peer.listening.set()
            case "broken":
                peer.broken = notice.broken.reason
            case "idle":
                peer.idle.set()
            case "refused":
                self._office.refusals.refused(notice.refused)
            case "asked" if notice.asked.HasField("statistics"):
                response = self._office.counted().SerializeToString()
                answer = pb.Answer(asked=notice.asked.number, response=response)
                peer.say(pb.Notice(answer=answer))
            case "asked" | "region_change_made" if self._registrar is not None:
                self._registrar.hear(peer, notice)
            case _:
                self._couriers.hear(peer, notice)

    def _standing(self) -> pb.Notice:
        names = [model.signature.name for model in self._office.catalogue]
        reasons = {name: self._office.unready(name) for name in names}
        return pb.Notice(
            standing=pb.Standing(
                serving=self._serving,
                emulated=self._office.emulated(),
                unready={name: reason for name, reason in reasons.items() if reason},
            )
        )

    def _settings_of(self, peer: Peer) -> pb.AcceptorSettings:
        settings = self._settings
        return pb.AcceptorSettings(
            name=f"acceptor {peer.number}",
            host=settings.host,
            port=self._port,
            reachable_host=settings.reachable_host,
            max_message_bytes=settings.max_message_bytes,
            queue_samples=settings.queue_samples,
            stream_requests=settings.stream_requests,
            reflection=settings.reflection,
            clock_zero_ns=self._office.clock_zero_ns,
            plan=write_plan(self._office.plan),
            models=notices.write_models(self._office.catalogue),
            wire=settings.wire,
            shared_memory_regions=settings.regions,
        )

    def _peers(self) -> Iterable[Peer]:
        return list(self._couriers.peers.values())


async def _idle_or_gone(peer: Peer) -> None:
    idle = asyncio.create_task(peer.idle.wait())
    await asyncio.wait((idle, peer.stream.ended), return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()


async def _awaited(future: asyncio.Future[list[None]]) -> None:
    await future

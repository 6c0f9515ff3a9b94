"""Links: long-lived, one way, from a sender to a receiver; this is the sending end.

A link is a gRPC stream that lives as long as both ends do. What carries its messages is chosen when
it opens: a neighbour in this process is handed them, one on this host reads them in shared memory,
any other gets them over the stream. Losing a link is an event for both ends; nothing here
reconnects. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import grpc.aio

from penstock.domain.errors import InvalidInput
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.carriers import Carrier, LinkFull, LinkKind, LinkLost, StreamCarrier
from penstock.rpc.channels import open_channel
from penstock.rpc.device_pool import DevicePool
from penstock.rpc.device_sender import DeviceCarrier
from penstock.rpc.frames import frame_parts, pack
from penstock.rpc.local_offer import DeviceSource, LocalOffer, make_offer
from penstock.rpc.neighbours import DirectCarrier, Neighbours
from penstock.rpc.outbox import Outbox
from penstock.rpc.receiving import KIND_KEY, METHOD, SERVICE, LinkReceiver, LinkServer
from penstock.rpc.shared_sender import CAPACITY_BYTES
from protos.link_pb2 import FrameHeader, Hello

__all__ = [
    "FRONTEND",
    "METHOD",
    "SERVICE",
    "LinkFull",
    "LinkKind",
    "LinkLost",
    "LinkReceiver",
    "LinkSender",
    "LinkServer",
    "Neighbours",
]

FRONTEND = "frontend"  # what the frontend calls itself; everyone else is an instance id

_LAST_WORDS_S = 0.2


class LinkSender:
    """The sending end of one link.

    Frames may be sent at once; they leave as soon as the link is open, in order, except that
    reports overtake what waits. Must be made on a running event loop.

    Attributes:
        closed: done when the link is open no more; its result says why in words. Frames still
            held then are lost.

    Args:
        address: host:port of the receiving process.
        name: what we call ourselves.
        limit_bytes: what may be held until the peer lets go of it; a single frame may be larger.
        connect_timeout_s: how long opening may take.
        shared_bytes: size of the shared memory to offer; 0: none.
        neighbours: who of this process needs no socket.
        device: where tensors may be left for a receiver that can reach that device.
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        limit_bytes: Bytes = 256 << 20,
        connect_timeout_s: float = 5.0,
        shared_bytes: Bytes = CAPACITY_BYTES,
        neighbours: Neighbours | None = None,
        device: DeviceSource | None = None,
    ) -> None:
        self.address = address
        self._limit_bytes = limit_bytes
        self._connect_timeout_s = connect_timeout_s
        self._shared_bytes = shared_bytes
        self._neighbours = neighbours
        self._device = device
        self._outbox = Outbox()
        self._carrier: Carrier | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._opened = asyncio.Event()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(name), name=f"link to {address}")

    @property
    def held_bytes(self) -> Bytes:
        """Bytes that wait here or that the peer has not let go of, as far as is known."""
        carried = self._carrier.held_bytes if self._carrier is not None else 0
        return self._outbox.held_bytes + carried

    @property
    def kind(self) -> LinkKind | None:
        """How bytes travel; None until the link is open."""
        return self._carrier.kind if self._carrier is not None else None

    @property
    def pool(self) -> DevicePool | None:
        """Where tensors for this receiver may stay on the device; None: nowhere."""
        return self._carrier.pool if isinstance(self._carrier, DeviceCarrier) else None

    async def opened(self) -> None:
        """Return once the peer has heard our name.

        Raises:
            LinkLost: it cannot be reached.
        """
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait((opened, self.closed), return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        self._check_open()

    def send_nowait(self, header: FrameHeader, parts: Iterable[Buffer] = ()) -> None:
        """Send a frame now or later, in order. The parts are not looked at afterwards.

        Raises:
            LinkLost: the link is open no more.
            LinkFull: too many bytes wait already.
        """
        self._check_open()
        if self.held_bytes >= self._limit_bytes:
            raise LinkFull(f"link to {self.address}: {self.held_bytes} bytes wait for the peer")
        self._put(header, parts)

    async def send(self, header: FrameHeader, parts: Iterable[Buffer] = ()) -> None:
        """Send a frame as soon as there is room for it.

        Raises:
            LinkLost: the link is open no more.
        """
        while self.held_bytes >= self._limit_bytes and not self.closed.done():
            self._room.clear()
            await self._room.wait()
        self._check_open()
        self._put(header, parts)

    def end(self, reason: str = "closed by us") -> None:
        """End the link now; frames still held are lost."""
        self._end(reason)
        self._task.cancel()

    async def close(self) -> None:
        """End the link and return when its connection is gone."""
        self.end()
        await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, header: FrameHeader, parts: Iterable[Buffer]) -> None:
        frame = frame_parts(header, parts)
        if self._may_leave(header) and self._sent_now(frame):
            return
        self._outbox.put(b"".join(frame), urgent=header.HasField("report"))
        self._news.set()

    def _may_leave(self, header: FrameHeader) -> bool:
        """Whether a frame overtakes none that it must not overtake."""
        return not self._outbox or self._outbox.ready_for(urgent=header.HasField("report"))

    def _sent_now(self, frame: Sequence[Buffer]) -> bool:
        if self._carrier is None:
            return False
        size = sum(map(len, frame))
        return self._carrier.room_for(size) == size and self._carrier.send_now(frame)

    def _check_open(self) -> None:
        if self.closed.done():
            raise LinkLost(f"link to {self.address}: {self.closed.result()}")

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self._outbox.clear()
        self._room.set()

    async def _run(self, name: str) -> None:
        reason = "closed by us"
        try:
            reason = await self._reach(name)
        except TimeoutError:
            reason = f"no answer within {self._connect_timeout_s:g} s"
        except grpc.aio.AioRpcError as error:
            reason = _words(error.code(), error.details())
        except (grpc.aio.UsageError, InvalidInput) as error:
            reason = str(error)
        finally:
            self._end(reason)

    async def _reach(self, name: str) -> str:
        """Open the link the shortest way; return why it ended."""
        door = self._neighbours.find(self.address) if self._neighbours is not None else None
        if door is not None:
            return await self._carry(DirectCarrier(door, name, self._room))
        async with open_channel(self.address) as channel:
            offer = await make_offer(self.address, self._shared_bytes, self._device)
            try:
                return await self._converse(channel, name, offer)
            finally:
                if offer is not None:
                    offer.close()

    async def _converse(
        self, channel: grpc.aio.Channel, name: str, offer: LocalOffer | None
    ) -> str:
        """Open the stream, send frames until it ends; return why it ended."""
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push(wait_for_ready=True)
        hello = Hello(sender=name)
        if offer is not None:
            hello.local_socket, hello.device = offer.socket_name, offer.device
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await call.write(pack(FrameHeader(hello=hello)))
                answer = await call.initial_metadata()
            local = offer and offer.carrier(answer.get(KIND_KEY), self._room)
            return await self._carry(local or StreamCarrier(call), _over(call))
        finally:
            call.cancel()

    async def _carry(self, carrier: Carrier, over: asyncio.Task[str] | None = None) -> str:
        """Send frames until the link has ended; return why it has.

        Args:
            carrier: closed at the end.
            over: done when the stream has ended; knows better why than the carrier.
        """
        self._carrier = carrier
        self._opened.set()
        tasks = [asyncio.create_task(self._write(carrier)), *([over] if over else [])]
        try:
            ends = [carrier.ended, *([over] if over else [])]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if over is not None:
                await asyncio.wait((over,), timeout=_LAST_WORDS_S)
            return over.result() if over is not None and over.done() else carrier.ended.result()
        finally:
            self._carrier = None
            for task in tasks:
                task.cancel()
            carrier.close()  # before anything is awaited: that may be cancelled
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, carrier: Carrier) -> None:
        """Send what waits, in order, until cancelled or the link ends."""
        while True:
            while self._outbox:
                await carrier.send(self._outbox.next(carrier.room_for))
                self._outbox.done()
                self._room.set()
            self._news.clear()
            await self._news.wait()


def _over(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> asyncio.Task[str]:
    """Return what is done when a call has ended: why, in words."""

    async def wait() -> str:
        await call.read()
        return _words(await call.code(), await call.details())

    return asyncio.create_task(wait())


def _words(code: grpc.StatusCode, details: str | None) -> str:
    if code is grpc.StatusCode.OK:
        return "closed by the peer"
    return f"{code.name}: {details}" if details else code.name

"""Links: long-lived streams that carry frames one way, from a sender to a receiver.

One RPC per link, `/penstock.v1.Link/Push`, registered by hand: generated serializers would copy
every tensor. The first frame is a hello. The receiver answers a hello with its initial metadata,
so a sender that is open knows that it was heard. Losing a link is an event for both ends;
nothing here reconnects. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from penstock.domain.errors import InvalidInput, PenstockError
from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.channels import new_server, open_channel
from penstock.rpc.frames import pack, unpack
from protos.link_pb2 import FrameHeader, Hello

SERVICE = "penstock.v1.Link"
METHOD = "Push"
FRONTEND = "frontend"  # what the frontend calls itself; everyone else is an instance id

OnFrame: TypeAlias = Callable[[str, FrameHeader, Sequence[memoryview]], None]
OnPeerLost: TypeAlias = Callable[[str], None]
_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class LinkLost(PenstockError):
    """A link could not be opened, or is open no more."""


class LinkFull(PenstockError):
    """The peer reads slower than frames are sent."""


class LinkReceiver:
    """Takes the frames of all links into one process.

    Args:
        on_frame: called with the sender's name, the header and the tensors' bytes, in the order
            the sender sent them. Must not block.
        on_peer_lost: called once with the sender's name when its link ends, however it ends;
            not when the same sender has opened a newer link meanwhile.
    """

    def __init__(self, on_frame: OnFrame, on_peer_lost: OnPeerLost) -> None:
        self._on_frame = on_frame
        self._on_peer_lost = on_peer_lost
        self._current: dict[str, _Context] = {}
        self._closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to offer the service."""
        push: grpc.RpcMethodHandler[bytes, bytes]
        push = grpc.stream_stream_rpc_method_handler(self._push)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: push})

    def close(self) -> None:
        """Tell nothing from now on."""
        self._closed = True

    async def _push(self, _: object, context: _Context) -> None:
        try:
            sender = await self._greeted(context)
            self._current[sender] = context
            try:
                await context.send_initial_metadata(())
                await self._receive(sender, context)
            finally:
                self._lose(sender, context)
        except InvalidInput as error:
            _log.warning("link from %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _greeted(self, context: _Context) -> str:
        frame = await context.read()
        header = None if frame is grpc.aio.EOF else unpack(frame)[0]
        if header is None or not header.HasField("hello"):
            raise InvalidInput("link", "first frame", "a hello", "something else")
        return header.hello.sender

    async def _receive(self, sender: str, context: _Context) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            header, tensors = unpack(frame)
            if self._current.get(sender) is not context:
                return
            if not self._closed:
                self._on_frame(sender, header, tensors)

    def _lose(self, sender: str, context: _Context) -> None:
        if self._current.get(sender) is not context:
            return
        del self._current[sender]
        if not self._closed:
            self._on_peer_lost(sender)


class LinkServer:
    """The port on which one process receives its links.

    Args:
        host: name or address to listen on.
        port: 0 for any free one.
        advertise: name that peers reach it by; `host` if empty.

    Raises:
        PenstockError: the port is taken.
    """

    def __init__(self, host: str, port: int = 0, advertise: str = "") -> None:
        self._server = new_server()
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PenstockError(f"cannot listen for links on {host}:{port}: {error}") from error
        self.address = f"{advertise or host}:{self.port}"

    async def start(self, receiver: LinkReceiver) -> None:
        """Receive links from now on."""
        self._server.add_generic_rpc_handlers((receiver.handler(),))
        await self._server.start()

    async def stop(self) -> None:
        """End all links and free the port."""
        await self._server.stop(grace=0)


class LinkSender:
    """The sending end of one link.

    Frames may be sent at once; they leave as soon as the link is open, in order. Must be made on
    a running event loop.

    Attributes:
        closed: done when the link is open no more; its result says why in words. Frames still
            held then are lost.

    Args:
        address: host:port of the receiving process.
        name: what we call ourselves.
        limit_bytes: what may be held until the peer takes it; a single frame may be larger.
        connect_timeout_s: how long opening may take.
    """

    def __init__(
        self,
        address: str,
        name: str,
        *,
        limit_bytes: Bytes = 256 << 20,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.address = address
        self._limit_bytes = limit_bytes
        self._connect_timeout_s = connect_timeout_s
        self._frames: deque[bytes] = deque()
        self._held_bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._opened = asyncio.Event()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(name), name=f"link to {address}")

    @property
    def held_bytes(self) -> Bytes:
        """Bytes that the peer has not taken yet."""
        return self._held_bytes

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
        """Send a frame later, in order.

        Raises:
            LinkLost: the link is open no more.
            LinkFull: too many bytes wait already.
        """
        self._check_open()
        if self._held_bytes >= self._limit_bytes:
            raise LinkFull(f"link to {self.address}: {self._held_bytes} bytes wait for the peer")
        self._put(pack(header, parts))

    async def send(self, header: FrameHeader, parts: Iterable[Buffer] = ()) -> None:
        """Send a frame as soon as there is room for it.

        Raises:
            LinkLost: the link is open no more.
        """
        while self._held_bytes >= self._limit_bytes and not self.closed.done():
            self._room.clear()
            await self._room.wait()
        self._check_open()
        self._put(pack(header, parts))

    def end(self, reason: str = "closed by us") -> None:
        """End the link now; frames still held are lost."""
        self._end(reason)
        self._task.cancel()

    async def close(self) -> None:
        """End the link and return when its connection is gone."""
        self.end()
        await asyncio.gather(self._task, return_exceptions=True)

    def _put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._held_bytes += len(frame)
        self._news.set()

    def _check_open(self) -> None:
        if self.closed.done():
            raise LinkLost(f"link to {self.address}: {self.closed.result()}")

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self._frames.clear()
        self._held_bytes = 0
        self._room.set()

    async def _run(self, name: str) -> None:
        reason = "closed by us"
        try:
            async with open_channel(self.address) as channel:
                reason = await self._converse(channel, name)
        except TimeoutError:
            reason = f"no answer within {self._connect_timeout_s:g} s"
        except grpc.aio.AioRpcError as error:
            reason = _words(error.code(), error.details())
        except grpc.aio.UsageError as error:
            reason = str(error)
        finally:
            self._end(reason)

    async def _converse(self, channel: grpc.aio.Channel, name: str) -> str:
        """Send frames until the call ends; return why it ended."""
        push: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        push = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        call = push(wait_for_ready=True)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await call.write(pack(FrameHeader(hello=Hello(sender=name))))
                await call.initial_metadata()
            self._opened.set()
            writing = asyncio.create_task(self._write(call))
            try:
                await call.read()
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            return _words(await call.code(), await call.details())
        finally:
            call.cancel()

    async def _write(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        """Write frames in order, until cancelled or the call ends."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                await call.write(frame)
                self._held_bytes -= len(frame)
                self._room.set()
            self._news.clear()
            await self._news.wait()


def _words(code: grpc.StatusCode, details: str | None) -> str:
    if code is grpc.StatusCode.OK:
        return "closed by the peer"
    return f"{code.name}: {details}" if details else code.name

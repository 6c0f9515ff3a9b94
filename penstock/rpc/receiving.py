"""The receiving end of links: one RPC, `/penstock.v1.Link/Push`, for all links into a process.

Registered by hand: generated serializers would copy every tensor. The first frame is a hello. The
receiver answers it with its initial metadata, so a sender that is open knows that it was heard, and
how to send. Losing a link is an event. Knows nothing of batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio

from penstock.cuda.memory import DeviceRefused
from penstock.domain.devices import DeviceBytes
from penstock.domain.errors import InvalidInput, PenstockError
from penstock.rpc.carriers import LinkKind
from penstock.rpc.channels import new_server
from penstock.rpc.device_reader import DeviceDoor, OnDeviceFrame, open_device
from penstock.rpc.device_wire import OFFER_BYTES
from penstock.rpc.frames import unpack
from penstock.rpc.inlet import Inlet, OnFrame
from penstock.rpc.neighbours import Neighbours
from penstock.rpc.shared_reader import Offered, SharedReader, fetch_offer
from protos.link_pb2 import FrameHeader, Hello

SERVICE = "penstock.v1.Link"
METHOD = "Push"
KIND_KEY = "penstock-link"  # in the initial metadata: how the receiver wants to be sent to

OnPeerLost: TypeAlias = Callable[[str], None]
_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class LinkReceiver:
    """Takes the frames of all links into one process.

    Args:
        on_frame: called with the sender's name, the header and the tensors' bytes, in the order
            the sender sent them, except that reports may overtake. Must not block. A link is read
            no further while more of its bytes than a limit are looked at.
        on_peer_lost: called once with the sender's name when its link ends, however it ends;
            not when the same sender has opened a newer link meanwhile.
        shared_memory: whether to take links through shared memory.
        device: takes frames whose tensors lie on a device; None: there is none.
    """

    def __init__(
        self,
        on_frame: OnFrame,
        on_peer_lost: OnPeerLost,
        *,
        shared_memory: bool = True,
        device: DeviceDoor | None = None,
    ) -> None:
        self._on_frame = on_frame
        self._on_peer_lost = on_peer_lost
        self._shared_memory = shared_memory
        self._device = device and DeviceDoor(device.memory, self._guarded(device.on_frame))
        self._inlets: dict[str, Inlet] = {}
        self._closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to offer the service."""
        push: grpc.RpcMethodHandler[bytes, bytes]
        push = grpc.stream_stream_rpc_method_handler(self._push)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: push})

    def kinds(self) -> Mapping[str, LinkKind]:
        """Return how each sender's bytes come."""
        return {sender: inlet.kind for sender, inlet in self._inlets.items()}

    def close(self) -> None:
        """Tell nothing from now on."""
        self._closed = True

    def end_links(self) -> None:
        """End all links; each is told as a loss."""
        for inlet in self._inlets.values():
            inlet.end("the receiver has stopped")

    def enter(self, sender: str, kind: LinkKind) -> Inlet:
        """Let a sender in, in place of an earlier link of the same sender."""
        inlet = Inlet(sender, kind, self._tell)
        older = self._inlets.get(sender)
        if older is not None:
            older.end("the sender has opened another link")
        self._inlets[sender] = inlet
        return inlet

    def leave(self, inlet: Inlet) -> None:
        """Take the end of a link."""
        inlet.end("closed by the sender")
        if self._inlets.get(inlet.sender) is not inlet:
            return
        del self._inlets[inlet.sender]
        if not self._closed:
            self._on_peer_lost(inlet.sender)

    def _tell(self, sender: str, header: FrameHeader, tensors: Sequence[memoryview]) -> None:
        if not self._closed:
            self._on_frame(sender, header, tensors)

    def _guarded(self, on_frame: OnDeviceFrame) -> OnDeviceFrame:
        def tell(
            sender: str,
            header: FrameHeader,
            tensors: Sequence[memoryview],
            places: Mapping[int, DeviceBytes],
        ) -> None:
            if not self._closed:
                on_frame(sender, header, tensors, places)

        return tell

    async def _push(self, _: object, context: _Context) -> None:
        try:
            hello = await _greeted(context)
            reader = await self._open(hello)
            try:
                await self._answer(hello.sender, reader, context)
            finally:
                if reader is not None:
                    reader.close()
        except InvalidInput as error:
            _log.warning("link from %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _open(self, hello: Hello) -> SharedReader | None:
        """Open the shared memory that a sender offers, if it does and we can."""
        if not hello.local_socket or not self._shared_memory:
            return None
        try:
            offered = await fetch_offer(hello.local_socket, OFFER_BYTES if hello.device else 0)
        except (OSError, InvalidInput) as error:
            _log.info("link from %s goes over gRPC: no shared memory: %s", hello.sender, error)
            return None
        on_device = await self._open_device(hello, offered) if hello.device else None
        return on_device or SharedReader(offered.connection, offered.segment)

    async def _open_device(self, hello: Hello, offered: Offered) -> SharedReader | None:
        """Map the device memory that a sender offers, if we have a device that can."""
        if self._device is None:
            _log.info("link from %s copies through the host: we use no device", hello.sender)
            return None
        try:
            return await open_device(offered, self._device)
        except DeviceRefused as error:
            name = self._device.memory.name
            where = "the same device" if name == hello.device else f"{hello.device}, ours is {name}"
            _log.info(
                "link from %s copies through the host: no CUDA IPC from %s: %s",
                *(hello.sender, where, error),
            )
            return None

    async def _answer(self, sender: str, reader: SharedReader | None, context: _Context) -> None:
        kind = LinkKind.STREAM if reader is None else reader.kind
        with self._entered(sender, kind, reader) as inlet:
            await context.send_initial_metadata(((KIND_KEY, kind.value),))
            if reader is not None:
                reader.start(inlet)
            await _received(inlet, reader, context)

    @contextmanager
    def _entered(self, sender: str, kind: LinkKind, reader: SharedReader | None) -> Iterator[Inlet]:
        inlet = self.enter(sender, kind)
        try:
            yield inlet
        finally:
            if reader is not None:
                reader.close()
            self.leave(inlet)


class LinkServer:
    """The port on which one process receives its links.

    Args:
        host: name or address to listen on.
        port: 0 for any free one.
        advertise: name that peers reach it by; `host` if empty.
        neighbours: who else of this process may send here without a socket.

    Raises:
        PenstockError: the port is taken.
    """

    def __init__(
        self,
        host: str,
        port: int = 0,
        advertise: str = "",
        neighbours: Neighbours | None = None,
    ) -> None:
        self._server = new_server()
        self._neighbours = neighbours
        self._receiver: LinkReceiver | None = None
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise PenstockError(f"cannot listen for links on {host}:{port}: {error}") from error
        self.address = f"{advertise or host}:{self.port}"

    async def start(self, receiver: LinkReceiver) -> None:
        """Receive links from now on."""
        self._server.add_generic_rpc_handlers((receiver.handler(),))
        await self._server.start()
        self._receiver = receiver
        if self._neighbours is not None:
            self._neighbours.add(self.address, receiver)

    async def stop(self) -> None:
        """End all links and free the port."""
        if self._neighbours is not None:
            self._neighbours.remove(self.address)
        if self._receiver is not None:
            self._receiver.end_links()
        await self._server.stop(grace=0)


async def _greeted(context: _Context) -> Hello:
    frame = await context.read()
    header = None if frame is grpc.aio.EOF else unpack(frame)[0]
    if header is None or not header.HasField("hello"):
        raise InvalidInput("link", "first frame", "a hello", "something else")
    return header.hello


async def _received(inlet: Inlet, reader: SharedReader | None, context: _Context) -> None:
    """Return when the link has ended.

    Raises:
        InvalidInput: the sender contradicts itself.
    """
    reading = asyncio.create_task(_read(inlet, context))
    ends: list[asyncio.Future[Any]] = [reading, inlet.ended]
    if reader is not None:
        ends.append(reader.ended)
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        fault = reader.ended.result() if reader is not None and reader.ended.done() else None
        if fault is not None:
            raise fault
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(inlet: Inlet, context: _Context) -> None:
    """Take messages from the stream until it ends, no faster than they are used."""
    while (message := await context.read()) is not grpc.aio.EOF:
        if not message:
            raise InvalidInput("link", "message", "some bytes", "none")
        inlet.take(inlet.holdings.lease(message))
        await inlet.holdings.room()

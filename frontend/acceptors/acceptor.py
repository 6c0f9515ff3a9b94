"""An acceptor: takes requests, holds their tensors, carries their rows. Decides nothing.

What it knows of the fleet and of the fate of requests the dispatcher has told it. Its counterpart
in the dispatcher's process is `frontend.acceptors.peers`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from frontend.acceptors import notices
from frontend.acceptors.questions import Questions
from frontend.acceptors.stream import NoticeStream
from frontend.admission import Admission
from frontend.courier import Courier
from frontend.door import Door, DoorSettings
from frontend.ingress import Ingress
from frontend.instance_links import InstanceLinks
from frontend.regions import SharedRegions
from frontend.servicer import Desk, SharedMemory
from penstock.aio.clock import MonotonicClock
from penstock.domain.errors import InvariantViolation, PenstockError
from penstock.domain.ids import BatchId, InstanceId, ModelName, RequestId
from penstock.rpc.links import LinkReceiver, LinkServer
from penstock.scheduling.effects import CompleteRequest
from penstock.scheduling.events import Event, RequestArrived, RequestCancelled
from protos import acceptors_pb2 as pb
from protos.link_pb2 import FrameHeader

_STARTING = "the server is starting"

_log = logging.getLogger(__name__)


class Acceptor:
    """One acceptor. Must be made inside a running event loop.

    Args:
        settings: what the dispatcher wants of it.
        stream: to the dispatcher.

    Attributes:
        stopped: set when the dispatcher says that this is the end.

    Raises:
        PenstockError: there is no port for links.
    """

    def __init__(self, settings: pb.AcceptorSettings, stream: NoticeStream) -> None:
        self._stream = stream
        self._standing = pb.Standing()
        self._told = asyncio.Event()
        self._questions = Questions(self._say)
        self._regions = _regions(settings)
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()
        self._ingress = Ingress()
        clock = MonotonicClock(settings.clock_zero_ns)
        self._admission = Admission(self._ingress, self._post, clock.now_us)
        self._link_server = LinkServer(settings.host, advertise=settings.reachable_host)
        self._links = InstanceLinks(settings.name, self._lose_link)
        self._receiver = LinkReceiver(self._on_frame, self._links.on_peer_lost)
        address = self._link_server.address
        self._courier = Courier(self._ingress, self._links, clock.now_us, self, address)
        self._door = Door(self._desk(settings), _door_settings(settings))

    def _desk(self, settings: pb.AcceptorSettings) -> Desk:
        return Desk(
            catalogue=notices.read_catalogue(settings),
            admission=self._admission,
            statistics=self._questions,
            metrics=self,
            unready=self._unready,
            emulated=lambda: self._standing.emulated,
            queue_samples=settings.queue_samples,
            stream_requests=settings.stream_requests,
            shared_memory=self._shared_memory(),
        )

    def _shared_memory(self) -> SharedMemory | None:
        if self._regions is None:
            return None
        return SharedMemory(regions=self._regions, registrar=self._questions)

    # Life

    async def start(self) -> None:
        """Let clients in, as soon as the dispatcher has told what there is.

        Raises:
            PenstockError: a port is taken.
        """
        await self._link_server.start(self._receiver)
        await self._told.wait()
        await self._door.listen()
        await self._door.show(serving=self._standing.serving)
        await self._door.start()
        self._say(pb.Notice(listening=pb.Listening(link=self._link_server.address)))

    async def stop(self) -> None:
        """Send the last answers, then close everything."""
        await self._door.stop(asyncio.Event())
        self._receiver.close()
        await self._links.close()
        await self._link_server.stop()

    # What the dispatcher says

    def hear(self, notice: pb.Notice) -> None:
        """Take one notice.

        Raises:
            InvalidInput: it contradicts itself.
        """
        match notice.WhichOneof("kind"):
            case "errand":
                self._courier.carry(notices.read_errand(notice.errand))
            case "answered":
                answered = notice.answered
                request = RequestId(answered.request)
                self._ingress.finish(CompleteRequest(request, answered.met_deadline))
            case "dropped":
                self._ingress.drop(notices.read_drop(notice.dropped))
            case "forgotten":
                self._courier.forget(BatchId(notice.forgotten))
            case kind:
                self._hear_of_server(kind, notice)

    def _hear_of_server(self, kind: str | None, notice: pb.Notice) -> None:
        """Take a notice that concerns no request."""
        match kind:
            case "joined":
                self._links.open(InstanceId(notice.joined.instance), notice.joined.address)
            case "parted":
                self._part(notice.parted)
            case "standing":
                self._stand(notice.standing)
            case "answer":
                self._questions.take(notice.answer)
            case "region_change" if self._regions is not None:
                self._change(self._regions, notice.region_change)
            case "closed":
                self._close()
            case "stopped":
                self.stopped.set()
            case _:
                _log.warning("the dispatcher said %s, which an acceptor does not take", kind)

    def _part(self, lost: pb.LostInstance) -> None:
        instance = InstanceId(lost.instance)
        if self._links.address(instance) == lost.address:
            self._links.disconnect(instance)

    def _stand(self, standing: pb.Standing) -> None:
        self._standing = standing
        self._told.set()
        self._spawn(self._door.show(serving=standing.serving))

    def _close(self) -> None:
        self._admission.close()
        self._spawn(self._tell_idle())

    async def _tell_idle(self) -> None:
        await self._admission.idle()
        self._say(pb.Notice(idle=True))

    def _change(self, regions: SharedRegions, change: pb.RegionChange) -> None:
        """Know other regions from now on, and tell when that is so."""
        problem = ""
        for name in change.closed:
            regions.unregister(name)
        for each in change.opened:
            try:
                regions.adopt(each.path, each.name, each.key, each.offset, each.byte_size)
            except PenstockError as error:
                problem = str(error)
                _log.warning("%s", problem)
        made = pb.RegionChangeMade(number=change.number, problem=problem)
        self._say(pb.Notice(region_change_made=made))

    # What requests do

    def _post(self, event: Event) -> None:
        match event:
            case RequestArrived(request):
                self._say(pb.Notice(arrived=notices.write_arrival(request)))
            case RequestCancelled(request):
                self._say(pb.Notice(cancelled=request))
            case _:
                raise InvariantViolation(f"admission posts {type(event).__name__}")

    def _unready(self, model: ModelName) -> str:
        if not self._told.is_set():
            return _STARTING
        return self._standing.unready.get(model, "")

    def refused(self, status: str) -> None:
        """Have a request counted that got no further."""
        self._say(pb.Notice(refused=status))

    # What instances do

    def _on_frame(self, sender: str, header: FrameHeader, views: Sequence[memoryview]) -> None:
        if not header.HasField("result"):
            kind = header.WhichOneof("kind")
            _log.warning("%s sent a %s, which an acceptor does not take", sender, kind)
            return
        if header.result.HasField("report"):
            self._say(pb.Notice(reported=header.result.report))
        self._courier.take(header.result, views)

    def _lose_link(self, instance: InstanceId, address: str) -> None:
        lost = pb.LostInstance(instance=instance, address=address)
        self._say(pb.Notice(unreachable=lost))

    # What became of errands

    def delivered(self, batch: BatchId) -> None:
        """All rows of ours are with their requests."""
        self._say(pb.Notice(delivered=batch))

    def failed(self, batch: BatchId, detail: str, *, retriable: bool) -> None:
        """The rows could not be sent, or those that came back do not fit."""
        fault = pb.BatchFault(batch=batch, detail=detail, retriable=retriable)
        self._say(pb.Notice(failed=fault))

    def unreachable(self, instance: InstanceId) -> None:
        """Do nothing: the dispatcher heard of it when the link was lost, or lost it itself."""

    def _say(self, notice: pb.Notice) -> None:
        self._stream.send(notice)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _regions(settings: pb.AcceptorSettings) -> SharedRegions | None:
    most = settings.shared_memory_regions
    return SharedRegions(most, settings.max_message_bytes) if most else None


def _door_settings(settings: pb.AcceptorSettings) -> DoorSettings:
    return DoorSettings(
        host=settings.host,
        port=settings.port,
        max_message_bytes=settings.max_message_bytes,
        reflection=settings.reflection,
        wire=settings.wire,
        shared=True,
    )

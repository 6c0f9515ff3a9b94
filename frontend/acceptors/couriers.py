"""What dispatcher and acceptors tell each other about requests and batches.

Turns effects into notices and notices into events. Only metadata passes here: rows go between
acceptors and instances. Knows nothing of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from types import MappingProxyType

from frontend.acceptors import notices
from frontend.acceptors.peers import Peer, Requests
from frontend.courier import Errand, Reply
from frontend.performer import Couriers, Performer
from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import BatchId, InstanceId, RequestId
from penstock.domain.requests import Slice
from penstock.scheduling.effects import CompleteRequest, DropRequest, RunBatch
from penstock.scheduling.events import Event, RequestArrived, RequestCancelled
from protos import acceptors_pb2 as pb
from protos.link_pb2 import BatchResult

_log = logging.getLogger(__name__)


class AcceptorCouriers:
    """The acceptors as couriers.

    A batch's rows are put in order of acceptors: those of one follow each other. No model cares
    which of its rows is first.

    Args:
        post: hands an event to the dispatcher.
    """

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._performer: Performer | None = None
        self._peers: dict[int, Peer] = {}
        self._instances: dict[InstanceId, str] = {}
        self._stillborn: list[BatchId] = []  # launched with rows of an acceptor that is gone
        self.requests = Requests()

    @property
    def peers(self) -> Mapping[int, Peer]:
        """The acceptors that are there, by number."""
        return MappingProxyType(self._peers)

    def hired_by(self, performer: Performer, reply_to: str) -> Couriers:
        """Carry for this performer; instances reply to the acceptors, not to `reply_to`."""
        del reply_to
        self._performer = performer
        return self

    # Acceptors come and go

    def enter(self, peer: Peer) -> None:
        """Take an acceptor in and tell it which instances there are."""
        self._peers[peer.number] = peer
        for instance, address in self._instances.items():
            peer.say(_joined(instance, address))

    def leave(self, peer: Peer) -> None:
        """Take an acceptor's loss: nobody waits for its requests, its rows will not come.

        Its requests are cancelled first, so that batches are repeated without them. The dispatcher
        may launch some of them while it is told of others.
        """
        del self._peers[peer.number]
        orphans = self._hirer.batches_of(peer.number)
        for request in list(peer.requests.values()):
            self._post(RequestCancelled(request))
        for unknown in list(peer.requests.values()):  # to the dispatcher
            self.requests.end(unknown)
        self._hirer.orphaned([*orphans, *self._stillborn])
        self._stillborn.clear()

    def broadcast(self, notice: pb.Notice) -> None:
        """Tell all acceptors."""
        for peer in self._peers.values():
            peer.say(notice)

    def hear(self, peer: Peer, notice: pb.Notice) -> None:
        """Take what an acceptor says of requests and batches.

        Raises:
            InvalidInput: it contradicts itself.
        """
        match notice.WhichOneof("kind"):
            case "arrived":
                request = self.requests.add(peer, notice.arrived.request)
                self._post(RequestArrived(notices.read_arrival(notice.arrived, request)))
            case "cancelled":
                cancelled = peer.requests.get(notice.cancelled)
                if cancelled is not None:
                    self._post(RequestCancelled(cancelled))
            case "reported":
                self._hirer.reported(notice.reported)
            case "delivered":
                self._hirer.delivered(peer.number, BatchId(notice.delivered))
            case "failed":
                fault = notice.failed
                batch = BatchId(fault.batch)
                self._hirer.failed(batch, fault.detail, retriable=fault.retriable)
            case "unreachable":
                lost = notice.unreachable
                self._hirer.unreachable(InstanceId(lost.instance), lost.address)
            case kind:
                _log.warning("acceptor %d said %s, which is not for us", peer.number, kind)

    @property
    def _hirer(self) -> Performer:
        if self._performer is None:
            raise InvariantViolation("nobody has hired the acceptors")
        return self._performer

    # What the performer wants

    def carry(self, effect: RunBatch) -> Set[int]:
        """Send each acceptor its errand."""
        shares = self._shares(effect.slices)
        replies, first = [], 0
        for peer, slices in shares.items():
            count = sum(each.count for each in slices)
            replies.append(Reply(address=peer.link, first=first, count=count))
            first += count
        route, wire_replies = notices.write_route(effect.route), notices.write_replies(replies)
        for (peer, slices), reply in zip(shares.items(), replies, strict=True):
            errand = Errand(
                batch=effect.batch,
                model=effect.model,
                samples=first,
                route=effect.route,
                slices=tuple(slices),
                abandon_us=effect.abandon_us,
                first=reply.first,
                replies=tuple(replies),
            )
            peer.say(pb.Notice(errand=notices.write_errand(errand, route, wire_replies)))
        couriers = {peer.number for peer in shares}
        if not couriers <= self._peers.keys():
            self._stillborn.append(effect.batch)
        return couriers

    def _shares(self, slices: Sequence[Slice]) -> dict[Peer, list[Slice]]:
        """Return the slices of each acceptor, with the requests' numbers there."""
        shares: dict[Peer, list[Slice]] = {}
        for each in slices:
            peer, own = self.requests.owner(each.request)
            shares.setdefault(peer, []).append(Slice(RequestId(own), each.first, each.count))
        return shares

    def take(self, result: BatchResult, views: Sequence[memoryview]) -> None:
        """Leave rows that came to the wrong process."""
        del views
        _log.warning("batch %d: rows came here instead of to an acceptor", result.batch_id)

    def forget(self, batch: BatchId, couriers: Set[int]) -> None:
        """Have no row of a batch reach a request any more."""
        for number in couriers:
            if number in self._peers:
                self._peers[number].say(pb.Notice(forgotten=batch))

    def finish(self, effect: CompleteRequest) -> None:
        """Have a request answered."""
        peer, own = self.requests.end(effect.request)
        answered = pb.RequestAnswered(request=own, met_deadline=effect.met_deadline)
        peer.say(pb.Notice(answered=answered))

    def drop(self, effect: DropRequest) -> None:
        """Have a request end without an answer."""
        peer, own = self.requests.end(effect.request)
        peer.say(pb.Notice(dropped=notices.write_drop(effect, own)))

    def joined(self, instance: InstanceId, address: str) -> None:
        """Have links opened to an instance."""
        self._instances[instance] = address
        self.broadcast(_joined(instance, address))

    def parted(self, instance: InstanceId, address: str) -> None:
        """Have the links to an instance ended."""
        self._instances.pop(instance, None)
        lost = pb.LostInstance(instance=instance, address=address)
        self.broadcast(pb.Notice(parted=lost))


def _joined(instance: InstanceId, address: str) -> pb.Notice:
    return pb.Notice(joined=pb.JoinedInstance(instance=instance, address=address))

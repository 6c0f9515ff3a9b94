"""The acceptors as the dispatcher's process knows them, and whose request is whose.

An acceptor numbers its requests itself; here each has a number that no other has. Knows nothing of
processes.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

from frontend.acceptors.stream import NoticeStream
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import RequestId
from protos.acceptors_pb2 import Notice


@dataclass(slots=True, eq=False)
class Peer:
    """One acceptor's process, from its start to its end.

    Attributes:
        number: no other process has it, before or after.
        link: host:port that instances send rows to; empty until it listens.
        broken: why it cannot serve, if it said so.
        requests: those without an outcome, by its own numbers.
    """

    number: int
    stream: NoticeStream
    link: str = ""
    broken: str = ""
    requests: dict[int, RequestId] = field(default_factory=dict)
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, notice: Notice) -> None:
        """Send it a notice; one that is gone hears nothing."""
        self.stream.send(notice)


class Requests:
    """Open requests and the acceptors that hold them."""

    def __init__(self) -> None:
        self._owners: dict[RequestId, tuple[Peer, int]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._owners)

    def add(self, peer: Peer, own: int) -> RequestId:
        """Take a request in under a number of ours.

        Args:
            peer: who holds it.
            own: the peer's number for it.

        Raises:
            InvalidInput: the acceptor has used its number for one that is open.
        """
        if own in peer.requests:
            raise InvalidInput("acceptor", "request", "a new number", str(own))
        request = RequestId(next(self._numbers))
        peer.requests[own] = request
        self._owners[request] = (peer, own)
        return request

    def owner(self, request: RequestId) -> tuple[Peer, int]:
        """Return who holds an open request, and its number there."""
        return self._owners[request]

    def end(self, request: RequestId) -> tuple[Peer, int]:
        """Forget a request; return who holds it, and its number there."""
        peer, own = self._owners.pop(request)
        del peer.requests[own]
        return peer, own

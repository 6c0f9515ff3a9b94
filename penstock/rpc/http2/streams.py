"""One stream of a connection: what may be sent, what waits to be sent, what may be received.

A value that `Connection` keeps; it decides nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Call = TypeVar("Call")


class Stream(Generic[Call]):
    """A stream that is open in at least one direction.

    Attributes:
        call: whatever the sink wants to find here again.
        send_room: bytes that the peer lets us send.
        receive_room: bytes that we let the peer send.
        owed: bytes received that were not yet granted again.
        remote_open: whether the peer may send more.
        unsent: data for which there is no room.
        trailers: header block that ends the stream, once `unsent` is gone.
        on_drained: told when `unsent` has been sent; never, if the stream is over before.
    """

    __slots__ = (
        "call",
        "number",
        "on_drained",
        "owed",
        "receive_room",
        "remote_open",
        "send_room",
        "trailers",
        "unsent",
    )

    def __init__(
        self, number: int, send_room: int, receive_room: int, *, remote_open: bool
    ) -> None:
        self.number = number
        self.send_room = send_room
        self.receive_room = receive_room
        self.remote_open = remote_open
        self.owed = 0
        self.call: Call | None = None
        self.unsent: deque[memoryview] = deque()
        self.trailers: bytes | None = None
        self.on_drained: Callable[[], None] | None = None

    @property
    def unsent_bytes(self) -> int:
        """What waits for room."""
        return sum(map(len, self.unsent))

    def tell_drained(self) -> None:
        """Tell whoever waits for room, once."""
        told, self.on_drained = self.on_drained, None
        if told is not None:
            told()

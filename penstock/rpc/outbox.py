"""Frames that wait to be sent, and the messages that they are cut into.

A frame that is larger than a message may be goes in chunks, so that no message is large and a small
report need not wait behind a huge tensor: reports overtake. All else stays in order. Knows nothing
of how messages travel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from penstock.domain.tensors import Buffer
from penstock.domain.units import Bytes
from penstock.rpc.frames import chunk_head


class Outbox:
    """Frames in the order in which they leave.

    Attributes:
        held_bytes: bytes that wait or are under way.
    """

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._urgent: deque[bytes] = deque()
        self._sent_bytes = 0  # of the first frame
        self.held_bytes: Bytes = 0
        self._under_way: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        """Whether anything waits, or is under way."""
        return bool(self._frames or self._urgent)

    def ready_for(self, *, urgent: bool) -> bool:
        """Whether a frame may leave at once without overtaking one that it must not overtake."""
        return not self._urgent if urgent else not self

    def put(self, frame: bytes, *, urgent: bool = False) -> None:
        """Let a frame wait."""
        (self._urgent if urgent else self._frames).append(frame)
        self.held_bytes += len(frame)

    def next(self, room_for: Callable[[Bytes], Bytes]) -> list[Buffer]:
        """Return the next message, in parts; it is under way until `done`.

        Args:
            room_for: says how much of so many bytes one message may carry.
        """
        if self._urgent:
            self._under_way = self._drop_urgent
            return [self._urgent[0]]
        frame, start = self._frames[0], self._sent_bytes
        rest = len(frame) - start
        if not start and room_for(rest) == rest:
            self._under_way = partial(self._advance, rest)
            return [frame]
        head = chunk_head(len(frame))
        size = room_for(len(head) + rest) - len(head)
        self._under_way = partial(self._advance, size)
        return [head, memoryview(frame)[start : start + size]]

    def done(self) -> None:
        """Forget the message that was under way, if nothing was cleared meanwhile."""
        forget, self._under_way = self._under_way, None
        if forget is not None:
            forget()

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._urgent.clear()
        self._sent_bytes = self.held_bytes = 0
        self._under_way = None

    def _drop_urgent(self) -> None:
        self.held_bytes -= len(self._urgent.popleft())

    def _advance(self, size: Bytes) -> None:
        self.held_bytes -= size
        self._sent_bytes += size
        if self._sent_bytes == len(self._frames[0]):
            self._frames.popleft()
            self._sent_bytes = 0

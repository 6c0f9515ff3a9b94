"""Calls of any number of messages, which are kept until they are wanted.

The client may go on as soon as nothing is kept: so a slow reader here holds a fast sender back.
"""

from __future__ import annotations

from collections import deque

import grpc

from penstock.domain.units import Bytes
from penstock.rpc.serving.call import Call, CallStream, Session, fault_status
from penstock.rpc.serving.direct import Refusal
from penstock.rpc.serving.head import CallHead
from penstock.rpc.serving.messages import MessageFault

# What a message that waits costs beside its bytes.
_ENTRY_BYTES = 64


class StreamedCall(Call):
    """A call whose messages wait in `_unread`."""

    def __init__(
        self, session: Session, stream: CallStream, head: CallHead, limit_bytes: Bytes
    ) -> None:
        super().__init__(session, stream, head, limit_bytes)
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._owed_bytes = 0
        self._ended = False

    def _take(self, messages: list[bytes], size: Bytes, *, ended: bool) -> None:
        self._unread.extend(messages)
        self._unread_bytes += sum(map(len, messages)) + _ENTRY_BYTES * len(messages)
        self._owed_bytes += size
        self._ended = ended
        if ended and self._reader.held_bytes:
            details = "expected whole messages, found the last one cut short"
            self.refuse(grpc.StatusCode.INVALID_ARGUMENT, details)
        elif self._hold(self._reader.held_bytes + self._unread_bytes):
            self._grant()
            self._came()

    def _came(self) -> None:
        """Do something about messages that have come, or their end."""

    def _pop(self) -> bytes:
        """Return the next of the messages that have come.

        Raises:
            Refusal: it cannot be had.
        """
        message = self._unread.popleft()
        self._unread_bytes -= len(message) + _ENTRY_BYTES
        self._hold(self._reader.held_bytes + self._unread_bytes)
        self._grant()
        try:
            return self._reader.opened(message)
        except MessageFault as fault:
            raise Refusal(fault_status(fault), str(fault)) from fault

    def _grant(self) -> None:
        """Let the client go on, unless there is something to read."""
        if self._owed_bytes and not self._unread:
            self._session.connection.grant(self._stream, self._owed_bytes)
            self._session.flush_soon()
            self._owed_bytes = 0

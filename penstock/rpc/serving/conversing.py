"""Streams of requests that are answered without a task, over our own HTTP/2."""

from __future__ import annotations

import logging
from functools import partial

import grpc

from penstock.domain.units import Bytes
from penstock.rpc.serving.call import PATIENCE_S, CallStream, Session
from penstock.rpc.serving.direct import FAILED, Refusal
from penstock.rpc.serving.head import CallHead
from penstock.rpc.serving.lane import Conversation, Lane
from penstock.rpc.serving.streamed import StreamedCall

_log = logging.getLogger(__name__)


class ConversingCall(StreamedCall):
    """A stream whose answers come in the order of its messages."""

    def __init__(
        self,
        session: Session,
        stream: CallStream,
        head: CallHead,
        limit_bytes: Bytes,
        conversation: Conversation,
    ) -> None:
        super().__init__(session, stream, head, limit_bytes)
        self._refusal: Refusal | None = None
        self._lane = Lane(conversation, self, self.say, self._came, self._break)

    def _came(self) -> None:
        """Take what there is room for; end with the last answer."""
        if self.over:
            return
        while self._unread and self._may_take():
            self._take_next()
        if self.over:
            return
        if self._lane.empty and self._refusal is not None:
            self._say_no(self._refusal)
        elif self._lane.empty and self._ended and not self._unread:
            self.finish()

    def _say_no(self, refusal: Refusal) -> None:
        """End with a status, at once if the client has no more to send."""
        if self._ended:
            self.refuse(refusal.code, refusal.details)
        else:
            self._session.later(PATIENCE_S, partial(self.refuse, refusal.code, refusal.details))

    def _may_take(self) -> bool:
        if self._stream.unsent:
            # A client that does not read its answers is not asked for more requests.
            self._stream.on_drained = self._came
            return False
        return not self._lane.full and self._refusal is None and not self.over

    def _take_next(self) -> None:
        try:
            self._lane.take(self._pop())
        except Refusal as refusal:
            self._refusal = refusal
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        _log.error("%s failed", self._head.path, exc_info=error)
        self.refuse(grpc.StatusCode.INTERNAL, FAILED)

    def _drop_work(self) -> None:
        self._lane.abandon()

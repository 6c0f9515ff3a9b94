"""Calls that are refused for what their headers say."""

from __future__ import annotations

from http import HTTPStatus

import grpc

from penstock.rpc.serving.call import PATIENCE_S, Call, CallStream, Session
from penstock.rpc.serving.head import CallHead


class RefusedCall(Call):
    """A call that is refused when its first part comes, or after a moment."""

    def __init__(
        self,
        session: Session,
        stream: CallStream,
        head: CallHead,
        code: grpc.StatusCode,
        details: str,
    ) -> None:
        super().__init__(session, stream, head, limit_bytes=0)
        self._refusal = code, details
        session.later(PATIENCE_S, self._say_no)

    def received(self, _data: bytes | memoryview, *, ended: bool) -> None:  # noqa: ARG002
        """Refuse, whatever it is."""
        self._say_no()

    def _say_no(self) -> None:
        status = self._head.http_status
        if status == HTTPStatus.OK:
            self.refuse(*self._refusal)
        elif not self.over:
            self.refuse_http(status)

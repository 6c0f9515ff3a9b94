"""Calls that are answered without a task: asked at once, answered when a future is done.

Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import grpc

from penstock.domain.units import Bytes
from penstock.rpc.serving.call import Call, CallStream, Session, fault_status
from penstock.rpc.serving.head import CallHead
from penstock.rpc.serving.messages import MessageFault

Outcome = TypeVar("Outcome")

ONE_MESSAGE = "expected one message"
FAILED = "the server failed; its log says how"

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A call that ends with a status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class Caller(Protocol):
    """Who asks."""

    def time_remaining(self) -> float | None:
        """Return for how many seconds it will wait; None if it did not say."""
        ...


@dataclass(frozen=True, slots=True)
class Asked(Generic[Outcome]):
    """A request under way.

    Attributes:
        outcome: cancelled if nobody wants it any more.
        answer: turns it into an encoded answer, or raises `Refusal`.
    """

    outcome: asyncio.Future[Outcome]
    answer: Callable[[Outcome], bytes]


# Takes an encoded request; raises `Refusal` if it cannot be asked. Outcomes differ by service.
Ask: TypeAlias = Callable[[bytes, Caller], Asked[Any]]


class DirectCall(Call):
    """One message, one answer, no task."""

    def __init__(
        self, session: Session, stream: CallStream, head: CallHead, limit_bytes: Bytes, ask: Ask
    ) -> None:
        super().__init__(session, stream, head, limit_bytes)
        self._ask = ask
        self._message: bytes | None = None
        self._asked: Asked[Any] | None = None

    def _take(self, messages: list[bytes], size: Bytes, *, ended: bool) -> None:
        for message in messages:
            if self._message is not None:
                self.refuse(grpc.StatusCode.INVALID_ARGUMENT, f"{ONE_MESSAGE}, found more")
                return
            self._message = message
        if ended and self._session.behind:
            self._wait()
        elif ended:
            self._begin()
        elif self._hold(self._reader.held_bytes + len(self._message or b"")):
            self._session.connection.grant(self._stream, size)
            self._session.flush_soon()

    def _wait(self) -> None:
        """Let a client begin to read what it asked for before more is made for it."""
        if self._hold(self._reader.held_bytes + len(self._message or b"")):
            self._session.when_read(self._stream.number, self._begin)

    def _begin(self) -> None:
        message, self._message = self._message, None
        if message is None or self._reader.held_bytes:
            self.refuse(grpc.StatusCode.INVALID_ARGUMENT, f"{ONE_MESSAGE}, found less")
            return
        try:
            self._asked = self._ask(self._reader.opened(message), self)
        except MessageFault as fault:
            self.refuse(fault_status(fault), str(fault))
        except Refusal as refusal:
            self.refuse(refusal.code, refusal.details)
        except Exception:
            self._fail()
        else:
            self._asked.outcome.add_done_callback(self._conclude)

    def _conclude(self, outcome: asyncio.Future[Any]) -> None:
        if self.over or self._asked is None:
            return
        if outcome.cancelled():
            self.refuse(grpc.StatusCode.CANCELLED, "")
            return
        try:
            answer = self._asked.answer(outcome.result())
        except Refusal as refusal:
            self.refuse(refusal.code, refusal.details)
        except Exception:
            self._fail()
        else:
            self.say(answer)
            self.finish()

    def _fail(self) -> None:
        _log.exception("%s failed", self._head.path)
        self.refuse(grpc.StatusCode.INTERNAL, FAILED)

    def _drop_work(self) -> None:
        self._session.never_mind(self._stream.number)
        if self._asked is not None:
            self._asked.outcome.cancel()

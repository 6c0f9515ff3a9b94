"""The requests of one stream that are under way, and their answers in the order they were asked.

No task per request: answers are said as soon as they and all before them are known. Knows nothing
of what is asked, nor of the wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.rpc.serving.direct import Asked, Caller

# Takes an encoded request; returns it under way, or its answer if it has one at once. Raises
# `Refusal` if nothing that follows can be trusted.
AskOnStream: TypeAlias = Callable[[bytes, Caller], "Asked[Any] | bytes"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """How streams of a method are answered.

    Attributes:
        limit: requests of one stream that may be under way.
    """

    ask: AskOnStream
    limit: int


class Lane:
    """One stream.

    Args:
        caller: whose it is.
        say: sends an answer.
        moved: told when an answer was said.
        broke: told when one could not be made.
    """

    def __init__(
        self,
        conversation: Conversation,
        caller: Caller,
        say: Callable[[bytes], None],
        moved: Callable[[], None],
        broke: Callable[[Exception], None],
    ) -> None:
        self._conversation = conversation
        self._caller = caller
        self._say = say
        self._moved = moved
        self._broke = broke
        self._slots: deque[Asked[Any] | bytes] = deque()

    @property
    def full(self) -> bool:
        """Whether no more may be taken now."""
        return len(self._slots) >= self._conversation.limit

    @property
    def empty(self) -> bool:
        """Whether all that was taken is answered."""
        return not self._slots

    def take(self, message: bytes) -> None:
        """Submit a message.

        Raises:
            Refusal: nothing that follows can be trusted.
        """
        slot = self._conversation.ask(message, self._caller)
        self._slots.append(slot)
        if isinstance(slot, bytes):
            self._say_known()
        else:
            slot.outcome.add_done_callback(self._advance)

    def abandon(self) -> None:
        """Cancel what nobody will read the answer of."""
        slots, self._slots = self._slots, deque()
        for slot in slots:
            if not isinstance(slot, bytes):
                slot.outcome.cancel()

    def _advance(self, _outcome: asyncio.Future[Any]) -> None:
        if not self._slots:
            return
        try:
            self._say_known()
        except asyncio.CancelledError:
            self._broke(RuntimeError("a request was cancelled under an open stream"))
        except Exception as error:
            self._broke(error)
        else:
            self._moved()

    def _say_known(self) -> None:
        while self._slots and _is_known(self._slots[0]):
            slot = self._slots.popleft()
            self._say(slot if isinstance(slot, bytes) else slot.answer(slot.outcome.result()))


def _is_known(slot: Asked[Any] | bytes) -> bool:
    return isinstance(slot, bytes) or slot.outcome.done()

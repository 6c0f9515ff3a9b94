"""What an acceptor asks the dispatcher's process: what it does not know, or may not decide.

Knows questions and their answers; nothing of who wants to know.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from penstock.domain.units import Bytes
from penstock.rpc.oip import ModelSignature
from penstock.rpc.status import Refused
from protos import acceptors_pb2 as pb
from protos.inference_pb2 import ModelStatisticsResponse


class Questions:
    """Asks, and waits for the answers.

    Args:
        say: sends a notice to the dispatcher.
    """

    def __init__(self, say: Callable[[pb.Notice], None]) -> None:
        self._say = say
        self._open: dict[int, asyncio.Future[pb.Answer]] = {}
        self._numbers = itertools.count()

    async def tell(self, signatures: Sequence[ModelSignature]) -> ModelStatisticsResponse:
        """Return what was counted of these models."""
        counted = ModelStatisticsResponse.FromString(await self._ask(pb.Question(statistics=True)))
        wanted = {each.name for each in signatures}
        chosen = [each for each in counted.model_stats if each.name in wanted]
        return ModelStatisticsResponse(model_stats=chosen)

    async def register(self, name: str, key: str, offset: Bytes, size: Bytes) -> None:
        """Have a region known to every acceptor.

        Raises:
            Refused: it is not.
        """
        region = pb.SharedRegion(name=name, key=key, offset=offset, byte_size=size)
        await self._ask(pb.Question(register=region))

    async def unregister(self, name: str) -> None:
        """Have every acceptor let go of a region, or of all if no name is given.

        Raises:
            Refused: one has not yet.
        """
        await self._ask(pb.Question(unregister=name))

    def take(self, answer: pb.Answer) -> None:
        """Take an answer; nobody may want it any more."""
        future = self._open.get(answer.asked)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _ask(self, question: pb.Question) -> bytes:
        question.number = next(self._numbers)
        future: asyncio.Future[pb.Answer] = asyncio.get_running_loop().create_future()
        self._open[question.number] = future
        self._say(pb.Notice(asked=question))
        try:
            answer = await future
        finally:
            del self._open[question.number]
        if answer.status:
            raise Refused(answer.status, answer.details)
        return answer.response

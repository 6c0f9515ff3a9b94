"""The door between the protocol and the dispatcher: each query goes in once, comes out once.

Sets the deadline, tells how the query ended, turns a caller that goes away into a cancellation,
and refuses everything once closed. Knows nothing of gRPC messages.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

from frontend.ingress import Dropped, Ingress, Outcome
from penstock.domain.ids import RequestId
from penstock.domain.requests import DropReason, Request
from penstock.domain.units import Micros
from penstock.rpc.oip import Query
from penstock.scheduling.events import Event, RequestArrived, RequestCancelled


class Admission:
    """Submits queries.

    Args:
        ingress: keeps the tensors of what is submitted.
        post: hands an event to the dispatcher.
        now_us: the dispatcher's clock.
    """

    def __init__(
        self, ingress: Ingress, post: Callable[[Event], None], now_us: Callable[[], Micros]
    ) -> None:
        self._ingress = ingress
        self._post = post
        self._now_us = now_us
        self._ids = itertools.count()
        self._closed = False
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def closed(self) -> bool:
        """Whether everything is refused."""
        return self._closed

    @property
    def pending(self) -> int:
        """Queries submitted whose outcome is not known yet."""
        return self._pending

    def close(self) -> None:
        """Refuse every query from now on; those submitted go on."""
        self._closed = True

    async def idle(self) -> None:
        """Return when no query is pending."""
        await self._idle.wait()

    def submit(
        self, query: Query, slo_us: Micros, time_left_us: Micros | None = None
    ) -> asyncio.Future[Outcome]:
        """Have a query answered.

        Args:
            query: a valid one.
            slo_us: latency the model promises; no query gets longer.
            time_left_us: how long the caller will still be there; None: no limit.

        Returns:
            How it ends. A caller that goes away cancels it; the dispatcher is told.
        """
        if self._closed:
            return _ended(Dropped(DropReason.UNAVAILABLE, "the server is shutting down"))
        now_us = self._now_us()
        allowed_us = slo_us
        for each in (query.timeout_us, time_left_us):
            if each is not None and each < allowed_us:
                allowed_us = each
        request = Request(
            id=RequestId(next(self._ids)),
            model=query.signature.name,
            samples=query.samples,
            arrival_us=now_us,
            deadline_us=now_us + allowed_us,
            priority=query.priority,
        )
        future = self._ingress.open(request.id, request.samples, query.inputs)
        self._pending += 1
        self._idle.clear()
        future.add_done_callback(partial(self._leave, request.id))
        self._post(RequestArrived(request))
        return future

    def _leave(self, request: RequestId, future: asyncio.Future[Outcome]) -> None:
        self._pending -= 1
        if self._pending == 0:
            self._idle.set()
        if future.cancelled():
            self._post(RequestCancelled(request))


def _ended(outcome: Outcome) -> asyncio.Future[Outcome]:
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    future.set_result(outcome)
    return future

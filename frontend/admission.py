"""The door between the protocol and the dispatcher: each query goes in once, comes out once.

Sets the deadline, awaits the outcome, turns a caller that goes away into a cancellation, and
refuses everything once closed. Knows nothing of gRPC messages.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

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

    async def submit(
        self, query: Query, slo_us: Micros, time_left_us: Micros | None = None
    ) -> Outcome:
        """Have a query answered.

        Args:
            query: a valid one.
            slo_us: latency the model promises; no query gets longer.
            time_left_us: how long the caller will still be there; None: no limit.

        Raises:
            CancelledError: the caller went away; the dispatcher has been told.
        """
        if self._closed:
            return Dropped(DropReason.UNAVAILABLE, "the server is shutting down")
        allowed = (slo_us, query.timeout_us, time_left_us)
        now_us = self._now_us()
        request = Request(
            id=RequestId(next(self._ids)),
            model=query.signature.name,
            samples=query.samples,
            arrival_us=now_us,
            deadline_us=now_us + min(each for each in allowed if each is not None),
            priority=query.priority,
        )
        self._enter()
        try:
            return await self._outcome(request, query)
        finally:
            self._leave()

    async def _outcome(self, request: Request, query: Query) -> Outcome:
        future = self._ingress.open(request.id, request.samples, query.inputs)
        try:
            self._post(RequestArrived(request))
            return await future
        except asyncio.CancelledError:
            self._post(RequestCancelled(request.id))
            raise

    def _enter(self) -> None:
        self._pending += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._pending -= 1
        if self._pending == 0:
            self._idle.set()

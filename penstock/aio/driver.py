"""Runs a dispatcher, or any machine of its shape, on an asyncio event loop.

Events go in through `post`, effects come out through `perform`; the machine itself never sees
the loop. Knows nothing of gRPC or tensors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.domain.units import US_PER_SECOND, Micros
from penstock.scheduling.effects import Effect, WakeAt
from penstock.scheduling.events import Event, RequestArrived, RequestCancelled, WakeUp
from penstock.scheduling.machine import Machine


class Clock(Protocol):
    """Where the driver reads the time."""

    def now_us(self) -> Micros:
        """Return the present instant; never goes back."""
        ...


class Driver:
    """Feeds one machine, in the order events are posted.

    The caller must post from the loop's own thread. `perform` must not block; it may post.

    Arrivals may be gathered. Under load a batch of one costs a frontend and an instance nearly as
    much as a batch of ten, and whoever waits for the processor waits in front of the dispatcher,
    where nothing can be batched. So an arrival is handled in the next turn of the loop if none was
    for a while, else with all others that come in that while.

    Args:
        machine: the dispatcher.
        clock: read once per event.
        perform: called for every effect but `WakeAt`, which the driver does itself.
        log: called with (now_us, event, effects) after each event; the run log.
        gather_us: least time between two moments at which arrivals are handled; 0: at once.
    """

    def __init__(
        self,
        machine: Machine[Event, Effect],
        clock: Clock,
        perform: Callable[[Effect], None],
        log: Callable[[Micros, Event, Sequence[Effect]], None] | None = None,
        gather_us: Micros = 0,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._perform = perform
        self._log = log
        self._inbox: deque[Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._gather_us = gather_us
        self._arrived: list[RequestArrived] = []
        self._admitted_us = -gather_us
        self._admission: asyncio.Handle | None = None

    def post(self, event: Event) -> None:
        """Handle an event now, or right after the one being handled; an arrival soon."""
        if isinstance(event, RequestArrived):
            self._gather(event)
            return
        if isinstance(event, RequestCancelled):  # perhaps of one that is being gathered
            self._admit()
        self._inbox.append(event)
        self._empty_inbox()

    def _gather(self, arrival: RequestArrived) -> None:
        self._arrived.append(arrival)
        if not self._gather_us:
            self._admit()
        elif self._admission is None:
            self._admission = self._admission_due()

    def _admission_due(self) -> asyncio.Handle:
        loop = asyncio.get_running_loop()
        wait_us = self._admitted_us + self._gather_us - self._clock.now_us()
        if wait_us > 0:
            return loop.call_later(wait_us / US_PER_SECOND, self._admit)
        return loop.call_soon(self._admit)  # with whoever comes in the same turn

    def _admit(self) -> None:
        """Handle what has arrived."""
        if self._admission is not None:
            self._admission.cancel()
            self._admission = None
        if not self._arrived:
            return
        self._admitted_us = self._clock.now_us()
        *others, last = self._arrived
        self._arrived.clear()
        self._inbox.extend(RequestArrived(each.request, followed=True) for each in others)
        self._inbox.append(last)
        self._empty_inbox()

    def _empty_inbox(self) -> None:
        if self._handling:
            return
        self._handling = True
        try:
            while self._inbox:
                self._handle(self._inbox.popleft())
        finally:
            self._handling = False

    def close(self) -> None:
        """Disarm the timers; events posted afterwards are still handled."""
        self._admit()
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handle(self, event: Event) -> None:
        now_us = self._clock.now_us()
        effects = self._machine.handle(now_us, event)
        try:
            for effect in effects:
                if isinstance(effect, WakeAt):
                    self._arm(effect.at_us)
                else:
                    self._perform(effect)
        finally:  # a batch is on its way before it is written about
            if self._log is not None:
                self._log(now_us, event, effects)

    def _arm(self, at_us: Micros) -> None:
        self._disarm()
        delay_s = max(0, at_us - self._clock.now_us()) / US_PER_SECOND
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.post, WakeUp())

"""Requests that wait for a batch: earliest deadline first, cut into slices when they leave."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.ids import RequestId
from penstock.domain.requests import Request, Slice
from penstock.domain.units import Micros

# Samples [first, first + count) of one request, that still wait: in order of priority, deadline,
# arrival and id of the request, then of the first sample; their count and the request follow.
_Entry: TypeAlias = tuple[int, Micros, Micros, RequestId, int, int, Request]


@dataclass(frozen=True, slots=True)
class Queued:
    """Samples of one request that wait together."""

    request: Request
    samples: int


class WaitingQueue:
    """Waiting samples of one model.

    Order: priority (1 first, 0 last), then deadline, arrival, id. Cancelled requests are
    skipped when they come to the front.

    Invariant: `samples` is the number of samples of live pieces.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._live: dict[RequestId, int] = {}
        self.samples = 0

    def __len__(self) -> int:
        """Return the number of requests with waiting samples."""
        return len(self._live)

    def push(self, request: Request, first: int, count: int) -> None:
        """Add samples [first, first + count) of a request."""
        heapq.heappush(self._heap, _entry(request, first, count))
        self._live[request.id] = self._live.get(request.id, 0) + count
        self.samples += count

    def head(self) -> Request | None:
        """Return the request at the front, or None; changes nothing that shows."""
        while self._heap:
            request = self._heap[0][-1]
            if request.id in self._live:
                return request
            heapq.heappop(self._heap)
        return None

    def in_order(self) -> Iterator[Queued]:
        """Yield what waits, front first; changes nothing. Reading k of them takes k log k."""
        heap = self._heap
        ahead = [(heap[0], 0)] if heap else []
        while ahead:
            entry, place = heapq.heappop(ahead)
            *_, count, request = entry
            if request.id in self._live:
                yield Queued(request, count)
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(ahead, (heap[child], child))

    def remove(self, request: RequestId) -> None:
        """Forget all waiting samples of a request."""
        self.samples -= self._live.pop(request, 0)

    def waiting(self, request: RequestId) -> int:
        """Return how many samples of a request wait."""
        return self._live.get(request, 0)

    def take(self, count: int) -> list[Slice]:
        """Remove up to `count` samples from the front; a request may be cut."""
        slices: list[Slice] = []
        while count > 0 and (request := self.head()) is not None:
            first, waiting = self._heap[0][4:6]
            taken = min(count, waiting)
            slices.append(Slice(request.id, first, taken))
            if taken == waiting:
                heapq.heappop(self._heap)
            else:
                # `first` takes part in the heap order only among pieces of one request: growing
                # the smallest of them may put it behind its sisters, so it is pushed anew.
                rest = _entry(request, first + taken, waiting - taken)
                heapq.heapreplace(self._heap, rest)
            self._count_off(request.id, taken)
            count -= taken
        return slices

    def _count_off(self, request: RequestId, taken: int) -> None:
        self.samples -= taken
        left = self._live[request] - taken
        if left:
            self._live[request] = left
        else:
            del self._live[request]


_LAST_PRIORITY = 1 << 62


def _entry(request: Request, first: int, count: int) -> _Entry:
    priority = request.priority if request.priority > 0 else _LAST_PRIORITY
    return priority, request.deadline_us, request.arrival_us, request.id, first, count, request

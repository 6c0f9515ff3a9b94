"""Requests, the slices of them that travel in a batch, and how they end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from penstock.domain.ids import ModelName, RequestId
from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One inference asked by a client.

    Attributes:
        samples: rows of its batch axis, at least 1.
        arrival_us, deadline_us: instants of the machine's own clock.
        priority: 1 is served first; 0 counts as the default, which is last.
    """

    id: RequestId
    model: ModelName
    samples: int
    arrival_us: Micros
    deadline_us: Micros
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """Samples [first, first + count) of a request, travelling in one batch."""

    request: RequestId
    first: int
    count: int


def samples_of(slices: Iterable[Slice]) -> int:
    """Return how many samples slices have together."""
    samples = 0
    for each in slices:
        samples += each.count
    return samples


class DropReason(Enum):
    """Why a request ended without an answer."""

    DEADLINE = "deadline"  # it can no longer be answered in time
    SHED = "shed"  # the queue was full
    UNAVAILABLE = "unavailable"  # no instance can serve it, or the one that did was lost
    FAILED = "failed"  # the computation itself failed
    CANCELLED = "cancelled"  # the client went away

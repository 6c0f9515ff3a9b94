"""The ports policies plug into, and the values they answer with.

A policy sees an `Outlook` and decides; it cannot reach the dispatcher, so it cannot book, send
or drop. Policies are chosen by name in `penstock.policies`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from penstock.domain.ids import PipelineId
from penstock.domain.requests import DropReason, Request
from penstock.domain.units import Micros
from penstock.scheduling.offers import Offer
from penstock.scheduling.waiting import Queued


@dataclass(frozen=True, slots=True)
class Launch:
    """Book this offer and send its batch now.

    Attributes:
        only_in_time: leave samples in the queue whose deadline the offer misses. Only a lower
            priority can have an earlier deadline than the head.
    """

    offer: Offer
    only_in_time: bool = False


NEVER = 1 << 62  # samples: more than ever wait


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at that instant, or at the next event if None.

    Attributes:
        enough: until then, and while fewer samples wait, neither an arrival behind the head nor a
            batch that ends as predicted changes the decision. A new head or another prediction
            may. 0: anything may.
    """

    until_us: Micros | None
    enough: int = 0


@dataclass(frozen=True, slots=True)
class Drop:
    """End the request at the head of the queue."""

    reason: DropReason
    detail: str


Decision: TypeAlias = Launch | Wait | Drop


@dataclass(frozen=True, slots=True)
class Finished:
    """A batch that was answered.

    Attributes:
        size: samples in it.
        latency_us: from its launch.
        met_deadlines: whether all of its requests were in time.
    """

    pipeline: PipelineId
    size: int
    latency_us: Micros
    met_deadlines: bool


class Outlook(Protocol):
    """What a policy sees. Asking changes nothing."""

    @property
    def now_us(self) -> Micros:
        """The instant of the decision."""
        ...

    @property
    def waiting(self) -> int:
        """Samples in the queue, at least 1."""
        ...

    @property
    def head(self) -> Request:
        """The request that must be served first; its deadline binds the batch."""
        ...

    @property
    def load(self) -> float:
        """Arrivals of late, as a part of what the pipelines get through with planned batches."""
        ...

    def queued(self) -> Iterator[Queued]:
        """Yield what waits in the order it would be launched, the head first; as far as read."""
        ...

    def offers(self) -> Sequence[Offer]:
        """Return each pipeline's offer for its planned batch, best first; at least one."""
        ...

    def resize(self, offer: Offer, size: int) -> Offer:
        """Return the same pipeline's offer for another batch size, 1 to its planned one."""
        ...

    def lateness_us(self, quantile: float) -> Micros | None:
        """Return how much later than predicted batches were answered of late, at a quantile.

        None while too few are known to say.
        """
        ...


class BatchingPolicy(Protocol):
    """When to launch how large a batch."""

    def decide(self, outlook: Outlook) -> Decision:
        """Decide for the head of a queue that is not empty.

        The dispatcher acts on the answer and asks again until it is `Wait` or the queue is
        empty. `Wait.until_us` must lie after `outlook.now_us`.
        """
        ...

    def observe(self, finished: Finished) -> None:
        """Learn from a finished batch."""
        ...


class RoutingPolicy(Protocol):
    """In which order a model's pipelines are considered."""

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, best first; they come in the plan's order, at least one.

        Asked once for each look at the queue, however that ends; learns nothing from it.
        """
        ...

    def launched(self, offer: Offer) -> None:
        """Learn that a batch was sent on this offer."""
        ...

"""The power of two choices: look at two pipelines drawn at random, take the shorter queue.

Source: Mitzenmacher (The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 2001). Two
different ones are drawn for each batch; the same two are considered until it is launched.

Deliberate difference: the pipelines that were not drawn follow, in the plan's order, for policies
that try another one before they drop a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from penstock.policies.draws import distinct
from penstock.policies.parameters import Within
from penstock.policies.routing.queue_length import queue_length
from penstock.scheduling.offers import Offer


@dataclass(slots=True)
class _Turn:
    """How many batches have been launched: what the draw of the next one is derived from."""

    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOfTwo:
    """Ranks the offers drawn by the batches booked on their routes, then the others.

    Attributes:
        choices: how many pipelines are drawn; as many as the plan has make it join the shortest
            queue with ties broken at random.
        seed: of the draws. Equal seeds give equal draws, whatever else happens.
    """

    choices: Annotated[int, Within(least=1)] = 2
    seed: int = 0
    _turn: _Turn = field(default_factory=_Turn, init=False, repr=False, compare=False)

    def rank(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Return the offers, the better of those drawn first."""
        count = min(self.choices, len(offers))
        drawn = distinct(self.seed, self._turn.number, count, len(offers))
        rest = (each for place, each in enumerate(offers) if place not in drawn)
        return [*sorted((offers[place] for place in drawn), key=queue_length), *rest]

    def launched(self, offer: Offer) -> None:  # noqa: ARG002 # the port's
        """Draw anew for the next batch."""
        self._turn.number += 1

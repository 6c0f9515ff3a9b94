"""What a load leaves behind: how each request ended, and when it was meant to be sent.

Knows nothing of gRPC: statuses are names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain.ids import ModelName
from penstock.domain.outcomes import Outcome
from penstock.domain.units import Micros

OK = "OK"

# Not a status of gRPC: this generator could not send the request in time or in its memory bound.
NOT_SENT = "NOT_SENT"

COLUMNS = (
    "number",
    "model",
    "samples",
    "first_row",
    "intended_us",
    "sent_us",
    "ended_us",
    "latency_us",
    "slo_us",
    "status",
    "details",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """One request of a load. Instants count from the start of the load.

    Attributes:
        number: its place among the arrivals.
        first_row: its first row in the inputs; the others follow, from the start after the end.
        intended_us: when the load meant it to be sent.
        sent_us: when it was handed to gRPC, or given up.
        status: ``OK``, the name of a gRPC status, or `NOT_SENT`.
        details: what the server said with the status.
    """

    number: int
    model: ModelName
    samples: int
    first_row: int
    slo_us: Micros
    intended_us: Micros
    sent_us: Micros
    ended_us: Micros
    status: str
    details: str = ""

    @property
    def answered(self) -> bool:
        """Whether there was an answer, in time or not."""
        return self.status == OK

    @property
    def latency_us(self) -> Micros:
        """Time from the intended send to the end, whatever the end was.

        Counted from the intention, a server that stalls the sender cannot hide the wait.
        """
        return self.ended_us - self.intended_us

    @property
    def send_lag_us(self) -> Micros:
        """How much later than intended it was sent."""
        return self.sent_us - self.intended_us

    def as_outcome(self) -> Outcome:
        """Return it as live loads and simulations share it."""
        return Outcome(
            model=self.model,
            arrival_us=self.intended_us,
            samples=self.samples,
            slo_us=self.slo_us,
            latency_us=self.latency_us if self.answered else None,
            cause="" if self.answered else self.status,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """A load that has ended.

    Attributes:
        outcomes: one per arrival, in order of arrival.
        duration_us: time over which requests were offered.
    """

    outcomes: tuple[RequestOutcome, ...]
    duration_us: Micros

    def as_outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcomes as live loads and simulations share them."""
        return tuple(each.as_outcome() for each in self.outcomes)


def write_outcomes(outcomes: Sequence[RequestOutcome]) -> str:
    """Return the outcomes as CSV, one row per request."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(each, column) for column in COLUMNS] for each in outcomes)
    return text.getvalue()

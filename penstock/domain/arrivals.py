"""Arrivals: who asks what, when; and what traces from elsewhere tell of it.

Knows nothing of files, of models that traces never heard of, and of where instants came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from penstock.domain.ids import ModelName
from penstock.domain.units import Micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a trace.

    Attributes:
        arrival_us: since the start of the trace.
        samples: rows of its batch axis, at least 1.
        slo_us: None: the model's own.
    """

    arrival_us: Micros
    model: ModelName
    samples: int = 1
    slo_us: Micros | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests to offer.

    Attributes:
        arrivals: in order of time, in [0, span).
        span_us: time over which they are offered.
    """

    arrivals: tuple[Arrival, ...]
    span_us: Micros


@dataclass(frozen=True, slots=True)
class ModelTrace:
    """A trace of ours: each request names its model.

    Attributes:
        arrivals: in order of time.
    """

    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A trace whose requests name nobody.

    Attributes:
        instants: of its requests, in order, the first at 0.
    """

    instants: tuple[Micros, ...]


@dataclass(frozen=True, slots=True)
class FunctionCalls:
    """The calls of one function.

    Attributes:
        instants: in order, since the first call of the trace.
    """

    name: str
    instants: tuple[Micros, ...]

    @property
    def calls(self) -> int:
        """How many."""
        return len(self.instants)


@dataclass(frozen=True, slots=True)
class FunctionCounts:
    """How often one function was called in each minute of the trace."""

    name: str
    per_minute: tuple[int, ...]

    @property
    def calls(self) -> int:
        """How many in all."""
        return sum(self.per_minute)


@dataclass(frozen=True, slots=True)
class CallTrace:
    """A trace that tells when each function was called."""

    functions: tuple[FunctionCalls, ...]


@dataclass(frozen=True, slots=True)
class CountTrace:
    """A trace that tells how often each function was called in each minute.

    Attributes:
        functions: all over the same minutes.
    """

    functions: tuple[FunctionCounts, ...]


Trace: TypeAlias = ModelTrace | RequestTrace | CallTrace | CountTrace

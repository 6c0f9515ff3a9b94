"""Arrivals: which model is asked when, as a trace tells it.

Knows nothing of files and of where the instants came from.
"""

from __future__ import annotations

from dataclasses import dataclass

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

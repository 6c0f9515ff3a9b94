"""What pictures are drawn from, beside the domain's own values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """Attainment at one load.

    Attributes:
        offered_rps: requests per second that were offered.
        attainment: share of them answered within their SLO, 0 to 1.
    """

    offered_rps: float
    attainment: float

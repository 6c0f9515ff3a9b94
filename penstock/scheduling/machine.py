"""The one shape that every driver drives.

Laws: `now_us` and the event are the only inputs, the effects and the machine's own state the
only outputs. `now_us` never goes back. Waiting is an effect. Outcomes are values; an exception
is a bug in penstock, or a plan refused before anything changed. A machine does not log: the
sequence of (now, event, effects) is the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from penstock.domain.units import Micros

E_contra = TypeVar("E_contra", contravariant=True)
F_co = TypeVar("F_co", covariant=True)


class Machine(Protocol[E_contra, F_co]):
    """State that changes only in `handle`."""

    def handle(self, now_us: Micros, event: E_contra) -> Sequence[F_co]:
        """Take one event; the caller performs every effect returned, in order."""
        ...

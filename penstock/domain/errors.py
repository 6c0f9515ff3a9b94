"""Every error penstock raises on purpose.

    PenstockError
    ├── InvalidInput            wrong data from outside; says where and what was expected
    │   ├── InvalidCluster
    │   ├── InvalidGraph
    │   ├── InvalidProfile
    │   ├── InvalidPlan
    │   ├── InvalidTrace
    │   ├── InvalidSettings
    │   └── InvalidRequest      a tensor or parameter a client sent
    ├── UnknownName             lists the names that are known
    ├── PlanningFailed
    │   └── Infeasible          which model, which constraint, by how much
    ├── StageLoadFailed         a stage could not be brought up on a device
    └── InvariantViolation      a bug in penstock; never caught except at the top

Outcomes of requests (dropped, cancelled) are values, not errors; gRPC status codes live in
``penstock.rpc.status``.
"""

from __future__ import annotations

from collections.abc import Iterable


class PenstockError(Exception):
    """Base of all errors that penstock raises on purpose."""


class InvalidInput(PenstockError):
    """Wrong data from outside, told in one line.

    Args:
        source: the file, request or setting that is wrong.
        place: the field inside it, such as ``models[0].slo_ms``; empty for the whole.
        expected: what would have been right.
        found: what was there instead.
    """

    def __init__(self, source: str, place: str, expected: str, found: str) -> None:
        self.source = source
        self.place = place
        self.expected = expected
        self.found = found
        where = f"{source}: {place}" if place else source
        super().__init__(f"{where}: expected {expected}, found {found}")


class InvalidCluster(InvalidInput):
    """A cluster file that contradicts itself or its schema."""


class InvalidGraph(InvalidInput):
    """A model graph or block partition that contradicts itself or its schema."""


class InvalidProfile(InvalidInput):
    """A latency profile with a gap, a wrong unit or a wrong number."""


class InvalidPlan(InvalidInput):
    """A plan that its own inputs do not allow."""


class InvalidTrace(InvalidInput):
    """An arrival trace that cannot be read."""


class InvalidSettings(InvalidInput):
    """A setting with an unknown name or a wrong value."""


class InvalidRequest(InvalidInput):
    """A tensor or parameter that does not fit the model it was sent to."""


class UnknownName(PenstockError):
    """A name that is not in the table it was looked up in.

    Args:
        kind: what was looked up, such as ``batching policy``.
        name: the name that was not found.
        known: the names that are there.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        listed = ", ".join(self.known) or "none"
        super().__init__(f"unknown {kind} {name!r}; known: {listed}")


class PlanningFailed(PenstockError):
    """No plan could be returned."""


class Infeasible(PlanningFailed):
    """No plan meets the constraints.

    Args:
        reasons: one line for each model or resource that stands in the way.
    """

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("infeasible: " + "; ".join(self.reasons))


class StageLoadFailed(PenstockError):
    """A stage could not be brought up on a device."""


class InvariantViolation(PenstockError):
    """A bug in penstock: a state that must never be reached."""

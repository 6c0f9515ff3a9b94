"""What processes hold after some trouble that they did not hold before: what leaked.

Compares footprints; knows nothing of what went on between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bench.footprint import Footprint
from penstock.domain.units import BYTES_PER_MIB as MIB

Held: TypeAlias = Mapping[str, Footprint]

# Of resident memory: the first rounds may make pools larger, later ones must not.
BAR_KEPT_BYTES, BAR_GROWTH_BYTES = 32 * MIB, 8 * MIB
# gRPC's pools have a thread more or less as they like.
BAR_MORE = {"open_files": 0, "threads": 2, "segments": 0}


def leftovers(held: Sequence[Held], open_requests: int) -> dict[str, Any]:
    """Return what is left of all the trouble.

    Args:
        held: what processes held before the first round, and after each of two or more.
        open_requests: when all is over.
    """
    before, halfway, last = held[0], held[len(held) // 2], held[-1]
    found = [f"{name} is not what it was" for name in {*before} ^ {*last}]
    if open_requests:
        found.append(f"{open_requests} requests are open")
    for name in sorted({*before} & {*halfway} & {*last}):
        found += [f"{name}: {each}" for each in left_of(before[name], halfway[name], last[name])]
    return {
        "held_before": {name: each.line() for name, each in before.items()},
        "held_halfway": {name: each.line() for name, each in halfway.items()},
        "held_last": {name: each.line() for name, each in last.items()},
        "leaks": found,
    }


def left_of(before: Footprint, halfway: Footprint, last: Footprint) -> list[str]:
    """Return what a process holds that it should not: in words, nothing if all is well."""
    found = [
        f"{getattr(last, what)} {what}, {getattr(before, what)} before"
        for what, more in BAR_MORE.items()
        if getattr(last, what) > getattr(before, what) + more
    ]
    for since, held, allowed in (
        ("before", before, BAR_KEPT_BYTES),
        ("halfway", halfway, BAR_GROWTH_BYTES),
    ):
        grown = last.resident_bytes - held.resident_bytes
        if grown > allowed:
            found.append(f"{grown / MIB:.1f} MiB more memory than {since}")
    return found

"""The greatest sum under linear bounds, by the simplex method, proved by its dual.

For the few rows and columns of brute force: plain lists, no tuning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_ZERO = 1e-9
_PROOF = 1e-7


def greatest_sum(rows: Sequence[Sequence[float]], rooms: Sequence[float]) -> float:
    """Return the greatest Σ x with rows · x ≤ rooms and x ≥ 0, by the simplex method.

    Args:
        rows: coefficients, none negative; every column has a positive one.
        rooms: positive.

    Raises:
        ArithmeticError: the dual does not prove the answer.
    """
    height, width = len(rows), len(rows[0])
    table = [
        [*row, *(float(place == other) for other in range(height)), room]
        for place, (row, room) in enumerate(zip(rows, rooms, strict=True))
    ]
    gains = [1.0] * width + [0.0] * (height + 1)
    while (column := next((j for j, gain in enumerate(gains[:-1]) if gain > _ZERO), -1)) >= 0:
        ratios = [(row[-1] / row[column], i) for i, row in enumerate(table) if row[column] > _ZERO]
        pivot = table[min(ratios)[1]]
        scale = pivot[column]
        pivot[:] = [each / scale for each in pivot]
        for row in (*table, gains):
            factor = row[column]
            if row is not pivot and factor:
                row[:] = [each - factor * other for each, other in zip(row, pivot, strict=True)]
    value, duals = -gains[-1], [-each for each in gains[width:-1]]
    _prove(rows, rooms, value, duals)
    return value


def _prove(
    rows: Sequence[Sequence[float]], rooms: Sequence[float], value: float, duals: Sequence[float]
) -> None:
    """Check by weak duality that no Σ x is greater than `value`."""
    covered = all(
        sum(row[j] * dual for row, dual in zip(rows, duals, strict=True)) >= 1 - _PROOF
        for j in range(len(rows[0]))
    )
    ceiling = sum(room * dual for room, dual in zip(rooms, duals, strict=True))
    if not covered or min(duals) < -_PROOF or not math.isclose(value, ceiling, rel_tol=_PROOF):
        raise ArithmeticError(f"simplex: {value} is not proved by {ceiling}")

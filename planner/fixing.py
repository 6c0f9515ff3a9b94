"""Fixing: which paths may still be part of a plan that loses no more than so much.

Against the relaxation a plan loses the price of idle instances and the reduced costs of its flows.
A pool that is opened has one instance at least. Of its worth, what is idle is lost, and what is
busy loses what the flow through it loses on its path; so each pool has a least loss, and one that
loses more than there is room for is in no such plan, nor is any path through it. What goes makes
the others lose more.

The pools of one path are open together. Their losses add up, but for flows that fill several of
them: with multipliers u of the path's pools, no greater than the prices of their instances, and

    Σ load(k, pool) · u[pool] ≤ reduced cost of k       for every path k

Σ u is lost at least (the dual of the least loss that fills them). Multipliers taken greedily, in
each order of the pools, were as good as the best in every case looked at, and need no solver. All
of this is exact: nothing that matters goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from planner.paths import Floats, Ints, PathTable

_TOGETHER = 2500  # paths, at most, whose pools are looked at together: the work grows as the square
_AT_ONCE = 128  # paths compared with all others in one go
_HAIR = 1e-6  # relative: room for rounding
_ROUNDS = 3  # of looking at pools together


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lot:
    """Paths that are left.

    Attributes:
        rows: of the table.
        keys: (paths, stages) of their pools; -1: none.
        loads: (paths, stages) instances kept busy per sample/s.
        idle: (paths, stages) price of an instance.
        costs: (paths,) reduced, not negative.
    """

    rows: Ints
    keys: Ints
    loads: Floats
    idle: Floats
    costs: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: NDArray[np.bool_]) -> _Lot:
        return _Lot(
            rows=self.rows[kept],
            keys=self.keys[kept],
            loads=self.loads[kept],
            idle=self.idle[kept],
            costs=self.costs[kept],
        )


def surviving(table: PathTable, costs: Floats, prices: Floats, room: float) -> Ints:
    """Return the paths that may be part of a plan that loses no more than `room`.

    Args:
        table: one model's paths.
        costs: their reduced costs, per sample/s; infinite: not to be used.
        prices: of a GPU, per class.
        room: what all of the plan may lose.
    """
    rows = np.flatnonzero(np.isfinite(costs))
    lot = _Lot(
        rows=rows,
        keys=table.pool_keys()[rows],
        loads=table.loads[rows],
        idle=table.idle_prices(prices)[rows],
        costs=np.maximum(costs[rows], 0.0),
    )
    room *= 1 + _HAIR
    lot = _apart(lot, room)
    for _ in range(_ROUNDS):
        if len(lot) > _TOGETHER:
            break
        before = len(lot)
        lot = _apart(lot.only(_together(lot) <= room), room)
        if len(lot) == before:
            break
    return lot.rows


def _apart(lot: _Lot, room: float) -> _Lot:
    """Drop paths with a pool that loses too much by itself, until there is none."""
    while True:
        kept = _worst_pool(lot) <= room
        if kept.all():
            return lot
        lot = lot.only(kept)


def _worst_pool(lot: _Lot) -> Floats:
    """Return the most that one of its pools loses at least, per path."""
    real = lot.keys >= 0
    full = np.where(real, lot.costs[:, None] / np.where(real, lot.loads, 1.0), np.inf)
    least = np.full(int(lot.keys.max(initial=0)) + 1, np.inf)
    np.minimum.at(least, lot.keys[real], full[real])
    lost: Floats = np.where(real, np.minimum(lot.idle, least[lot.keys]), 0.0)
    most: Floats = lost.max(axis=1, initial=0.0)
    return most


def _together(lot: _Lot) -> Floats:
    """Return what its pools lose at least together, per path."""
    parts = [_lost(lot, slice(start, start + _AT_ONCE)) for start in range(0, len(lot), _AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0)


def _lost(lot: _Lot, some: slice) -> Floats:
    """Return the sum of the best multipliers of some paths' pools."""
    keys = lot.keys[some]
    shared = (keys[:, None, :] == lot.keys[None, :, :]) & (keys >= 0)[:, None, :]
    loads = np.where(shared, lot.loads[None, :, :], 0.0)
    most = np.zeros(len(keys))
    for order in permutations(range(keys.shape[1])):
        left = np.broadcast_to(lot.costs, shared.shape[:2]).copy()
        total = np.zeros(len(keys))
        for position in order:
            load = loads[:, :, position]
            with np.errstate(divide="ignore", invalid="ignore"):
                most_here = np.where(load > 0, left / load, np.inf).min(axis=1)
            u = np.where(
                keys[:, position] >= 0, np.minimum(most_here, lot.idle[some, position]), 0.0
            )
            left = np.maximum(0.0, left - load * u[:, None])
            total += u
        most = np.maximum(most, total)
    return most

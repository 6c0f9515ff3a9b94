"""Bundles: instances of one model that together carry a demand, found by a knapsack over paths.

A path that carries f samples/s in pools of its own takes ceil(load · f) instances of each stage. It
wastes least where f fills one of its pools to the brim, so those flows are the *items* of a path:
few enough to list for thousands of paths. The cheapest items that sum to the demand are found by
dynamic programming over the flow, cut into cells (a covering knapsack: Bellman 1957), in
milliseconds where a mixed-integer program over the same paths takes the better part of a minute.
Items next best in the last step give other bundles, hardly dearer and with other GPUs.

Knows one model at a time and nothing of solvers; what fits together is `planner.assemble`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from planner.paths import Floats, Ints, PathTable

CELLS = 2000  # of the demand: an item is counted to the cell below, which costs half a cell at most
PARTS = 3  # items in a bundle, at most
_PATHS = 20_000  # with the least reduced cost
_WASTE = 0.05  # of the demand's worth: what an item may waste,
_IDLE = 0.5  # or so many GPUs of the class with the highest price, if that is more
_REACH = 0.2  # of its worth: what a sample/s may lose on a path
_PER_CELL = 30  # items with the least waste that are kept
_BUNDLES = 100  # of one search, at most
_DEARER = 0.02  # relative: what a bundle may cost more than the cheapest
_FULL = 1e-9  # instances: a pool this little over full is full

Units: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Flows that fill a path well, and what they take.

    Attributes:
        path: (items,) row in the model's table.
        flow: (items,) samples/s.
        units: (items, classes) parts of GPUs, as many to a GPU as `per_gpu` tells.
    """

    path: Ints
    flow: Floats
    units: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Items that carry a demand together.

    Attributes:
        flows: (path, samples/s) of each item.
        units: parts of GPUs that they take, by class, in pools of their own.
    """

    flows: tuple[tuple[int, float], ...]
    units: Units


def list_items(
    table: PathTable,
    costs: Floats,
    worth: float,
    prices: Floats,
    demand: float,
    per_gpu: Sequence[int],
) -> Items:
    """Return the items of one model's paths.

    Args:
        table: the paths.
        costs: their reduced costs, per sample/s.
        worth: of a sample/s.
        prices: of a GPU, per class.
        demand: samples/s; no item is much larger.
        per_gpu: units that a GPU of each class is counted in; 1: models share none.
    """
    most = min(_PATHS, len(costs))
    near = np.sort(np.argpartition(costs, most - 1)[:most])
    near = near[costs[near] <= _REACH * worth]
    lots = [
        _filling(table, near, position, prices, demand, worth, per_gpu)
        for position in range(table.stages.shape[1])
    ]
    return _thinned(
        Items(
            path=np.concatenate([each.path for each in lots]),
            flow=np.concatenate([each.flow for each in lots]),
            units=np.concatenate([each.units for each in lots]),
        ),
        prices / np.array(per_gpu),
        demand,
    )


def _filling(
    table: PathTable,
    near: Ints,
    position: int,
    prices: Floats,
    demand: float,
    worth: float,
    per_gpu: Sequence[int],
) -> Items:
    """Return the items that fill a path's pool at one position."""
    load = table.loads[near, position]
    times = np.ceil(demand * load - _FULL).astype(np.int64)  # 0 where there is no such stage
    which = np.repeat(np.arange(len(near)), times)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times) + 1
    flow = nth / load[which]
    units = table.units(near[which], flow, per_gpu)
    waste = units @ (prices / np.array(per_gpu)) - worth * np.minimum(flow, demand)
    kept = waste <= max(_WASTE * worth * demand, _IDLE * float(prices.max()))
    return Items(path=near[which[kept]], flow=flow[kept], units=units[kept])


def _thinned(items: Items, unit_prices: Floats, demand: float) -> Items:
    """Keep the cheapest items of each cell."""
    cell = _cells(items.flow, demand)
    order = np.lexsort((items.units @ unit_prices, cell))
    first = np.searchsorted(cell[order], cell[order], side="left")
    kept = np.sort(order[np.arange(len(order)) - first < _PER_CELL])
    return Items(path=items.path[kept], flow=items.flow[kept], units=items.units[kept])


def _cells(flow: Floats, demand: float) -> Ints:
    cells: Ints = np.minimum(CELLS, np.floor(flow / demand * CELLS + _FULL)).astype(np.int64)
    return cells


def cheapest(items: Items, unit_prices: Floats, demand: float) -> list[Bundle]:
    """Return the cheapest bundle for a demand and others hardly dearer; empty if there is none.

    Args:
        items: of one model, listed for this demand or a greater one.
        unit_prices: of a unit, per class.
        demand: samples/s.
    """
    best, item = _best_items(items, unit_prices, demand)
    shorter = [best]
    parts: list[Ints] = []
    for _ in range(PARTS - 2):
        longer, part = _joined(shorter[-1], best)
        shorter.append(longer)
        parts.append(part)
    ends = shorter[-1][::-1] + best  # the last item carries as many cells as its place tells
    least = float(ends.min())
    if not np.isfinite(least):
        return []
    chosen = np.argsort(ends, kind="stable")[:_BUNDLES]
    found: dict[Units, Bundle] = {}
    for last in chosen[ends[chosen] <= least * (1 + _DEARER)].tolist():
        bundle = _bundle(items, [item[cells] for cells in _split(last, parts)])
        found.setdefault(bundle.units, bundle)
    return list(found.values())


def _best_items(items: Items, unit_prices: Floats, demand: float) -> tuple[Floats, Ints]:
    """Return the least cost of one item that carries so many cells at least, and which it is."""
    cost = items.units @ unit_prices
    cells = _cells(items.flow, demand)
    best, item = np.full(CELLS + 1, np.inf), np.full(CELLS + 1, -1, dtype=np.int64)
    order = np.argsort(-cost, kind="stable")  # of equal cells the cheapest is written last
    best[cells[order]], item[cells[order]] = cost[order], order
    for cell in range(CELLS - 1, -1, -1):
        if best[cell + 1] < best[cell]:
            best[cell], item[cell] = best[cell + 1], item[cell + 1]
    best[0], item[0] = 0.0, -1
    return best, item


def _joined(left: Floats, right: Floats) -> tuple[Floats, Ints]:
    """Return the least cost of any number of cells split in two, and the right one's part."""
    least, part = left.copy(), np.zeros(CELLS + 1, dtype=np.int64)
    for cells in range(1, CELLS + 1):
        costs = left[cells::-1] + right[: cells + 1]
        part[cells] = costs.argmin()
        least[cells] = costs[part[cells]]
    return least, part


def _split(last: int, parts: Sequence[Ints]) -> Iterator[int]:
    """Yield the cells that each item of a bundle carries."""
    yield last
    cells = CELLS - last
    for part in reversed(parts):
        yield int(part[cells])
        cells -= int(part[cells])
    yield cells


def _bundle(items: Items, chosen: Sequence[np.int64]) -> Bundle:
    numbers = [int(each) for each in chosen if each >= 0]
    flows: defaultdict[int, float] = defaultdict(float)
    for number in numbers:
        flows[int(items.path[number])] += float(items.flow[number])
    units = items.units[numbers].sum(axis=0)
    return Bundle(flows=tuple(flows.items()), units=tuple(units.tolist()))

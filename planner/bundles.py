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

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from penstock.domain.ids import GpuClassName
from planner.candidates import CandidatePool
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
Flows: TypeAlias = tuple[tuple[int, float], ...]  # path, samples/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How GPUs are counted, and what they cost, class by class.

    Attributes:
        names: of the classes.
        count: GPUs there are.
        price: of a GPU, in any unit.
        per_gpu: units that a GPU is counted in: a multiple of every share's denominator; 1 if a
            pool's GPUs are its own.
    """

    names: tuple[GpuClassName, ...]
    count: Floats
    price: Floats
    per_gpu: tuple[int, ...]

    @property
    def unit_prices(self) -> Floats:
        """Price of a unit."""
        prices: Floats = self.price / np.array(self.per_gpu)
        return prices


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

    flows: Flows
    units: Units


def list_items(table: PathTable, costs: Floats, worth: float, demand: float, terms: Terms) -> Items:
    """Return the items of one model's paths.

    Args:
        table: the paths.
        costs: their reduced costs, per sample/s.
        worth: of a sample/s.
        demand: samples/s; no item is much larger.
        terms: prices and units.
    """
    most = min(_PATHS, len(costs))
    near = np.sort(np.argpartition(costs, most - 1)[:most])
    near = near[costs[near] <= _REACH * worth]
    lots = [
        _filling(table, near, position, worth, demand, terms)
        for position in range(table.stages.shape[1])
    ]
    return _thinned(
        Items(
            path=np.concatenate([each.path for each in lots]),
            flow=np.concatenate([each.flow for each in lots]),
            units=np.concatenate([each.units for each in lots]),
        ),
        terms.unit_prices,
        demand,
    )


def _filling(
    table: PathTable, near: Ints, position: int, worth: float, demand: float, terms: Terms
) -> Items:
    """Return the items that fill a path's pool at one position."""
    load = table.loads[near, position]
    times = np.ceil(demand * load - _FULL).astype(np.int64)  # 0 where there is no such stage
    which = np.repeat(np.arange(len(near)), times)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times) + 1
    flow = nth / load[which]
    units = table.units(near[which], flow, terms.per_gpu)
    waste = units @ terms.unit_prices - worth * np.minimum(flow, demand)
    kept = waste <= max(_WASTE * worth * demand, _IDLE * float(terms.price.max()))
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


def instances_of(table: PathTable, flows: Flows) -> dict[CandidatePool, int]:
    """Return the instances that flows take; what two paths have in common is shared."""
    busy: defaultdict[CandidatePool, float] = defaultdict(float)
    paths = table.candidates(np.array([path for path, _ in flows], dtype=np.int64))
    for path, (_, flow) in zip(paths, flows, strict=True):
        for position, pool in enumerate(path.pools):
            busy[pool] += path.load(position) * flow
    return {pool: math.ceil(load - _FULL) for pool, load in busy.items()}


def bundle_of(table: PathTable, flows: Flows, terms: Terms) -> Bundle:
    """Return flows with what they take together."""
    units = [0] * len(terms.names)
    for pool, count in instances_of(table, flows).items():
        at = terms.names.index(pool.gpu_class.name)
        units[at] += -(-count * terms.per_gpu[at] // pool.m)
    return Bundle(flows=flows, units=tuple(units))


class Cover:
    """The cheapest ways for items to carry a demand."""

    def __init__(self, items: Items, unit_prices: Floats, demand: float) -> None:
        """Find them.

        Args:
            items: of one model, listed for this demand or a greater one.
            unit_prices: of a unit, per class.
            demand: samples/s.
        """
        self._items = items
        cells = _cells(items.flow, demand)
        self._best, self._item = _best_items(cells, items.units @ unit_prices)
        self._shorter = self._best  # of one item less than a bundle has
        self._parts: list[Ints] = []
        for _ in range(PARTS - 2):
            self._shorter, part = _joined(self._shorter, self._best)
            self._parts.append(part)
        self._ends = self._shorter[::-1] + self._best  # the last carries as many cells as its place

    @property
    def least(self) -> float:
        """Cost of the cheapest bundle; infinite if there is none."""
        return float(self._ends.min())

    @property
    def rest(self) -> Floats:
        """(cells + 1,) least cost of so many cells carried by one item less than a bundle has."""
        return self._shorter

    def carrying(self, cells: int) -> Flows:
        """Return the cheapest items that carry so many cells at least, as `rest` has them."""
        items = self._chosen_items(np.array([0]), np.array([cells]))[0]
        return tuple(
            (int(self._items.path[item]), float(self._items.flow[item]))
            for item in items[items >= 0]
        )

    def bundles(self) -> list[Bundle]:
        """Return the cheapest bundle and others hardly dearer; empty if there is none."""
        ends, least = self._ends, self.least
        if not np.isfinite(least):
            return []
        chosen = np.argsort(ends, kind="stable")[:_BUNDLES]
        chosen = chosen[ends[chosen] <= least * (1 + _DEARER)]
        items = self._chosen_items(chosen, CELLS - chosen)
        units = np.where(items[:, :, None] >= 0, self._items.units[items], 0).sum(axis=1)
        _, first = np.unique(units, axis=0, return_index=True)
        return [self._bundle(items[row], units[row]) for row in np.sort(first)]

    def _chosen_items(self, last: Ints, left: Ints) -> Ints:
        """Return (bundles, parts) items, from the cells of the last one and the rest; -1: none."""
        carried = [last]
        for part in reversed(self._parts):
            carried.append(part[left])
            left = np.maximum(0, left - part[left])
        return self._item[np.stack([*carried, left], axis=1)]

    def _bundle(self, items: Ints, units: Ints) -> Bundle:
        flows: defaultdict[int, float] = defaultdict(float)
        for item in items[items >= 0]:
            flows[int(self._items.path[item])] += float(self._items.flow[item])
        return Bundle(flows=tuple(flows.items()), units=tuple(units.tolist()))


def _best_items(cells: Ints, cost: Floats) -> tuple[Floats, Ints]:
    """Return the least cost of one item that carries so many cells at least, and which it is."""
    best, item = np.full(CELLS + 1, np.inf), np.full(CELLS + 1, -1, dtype=np.int64)
    order = np.argsort(-cost, kind="stable")  # of equal cells the cheapest is written last
    best[cells[order]], item[cells[order]] = cost[order], order
    best[0], item[0] = 0.0, -1
    downwards = best[::-1]
    least = np.minimum.accumulate(downwards)
    source = np.maximum.accumulate(np.where(downwards <= least, np.arange(CELLS + 1), 0))
    return least[::-1], item[::-1][source][::-1]


def _joined(left: Floats, right: Floats) -> tuple[Floats, Ints]:
    """Return the least cost of any number of cells split in two, and the right one's part."""
    steps = np.flatnonzero(right < np.append(right[1:], np.inf))  # only there it may end
    costs = left[np.maximum(0, np.arange(CELLS + 1) - steps[:, None])] + right[steps, None]
    which = costs.argmin(axis=0)
    return costs[which, np.arange(CELLS + 1)], steps[which]

"""Bundles whose paths share pools, found by a beam search over flows.

A path alone leaves parts of instances idle in all its pools but the one that it fills. Another path
through one of these pools can take them up. So flows are added one after the other, each as large
as fills a pool of its path, beside what the earlier ones keep busy there. Of the many that come
about those that waste least go on, some for every part of the demand (beam search: Lowerre 1976);
what is idle counts for less than what is lost, as it may still be taken up. At any step the
cheapest items may carry what is left of the demand (`planner.bundles`).

Knows one model at a time and nothing of solvers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.bundles import CELLS, Bundle, Cover, Terms, Units, bundle_of
from planner.paths import Floats, Ints, PathTable

_PATHS = 40  # that cost least
_BEST = 2  # of them, beside which others may carry a little in the same pools:
_BESIDE = 100  # so many of those
_REACH = 0.2  # of its worth: what a sample/s may lose on a path
_STEPS = 5  # flows added one after the other, at most
_PARTS = 16  # of the demand, in each of which some go on
_GO_ON = 100  # in each part, at most
_WORK = 1_000_000  # steps looked at from those that go on, at most
_AT_ONCE = 100_000  # steps looked at in one go
_HOPE = 0.8  # of what is idle may still be taken up
_LOOKED_AT = 1000  # of which those may be
_DEARER = 3e-4  # of the fleet's worth: what a bundle may cost more than the cheapest
_BUNDLES = 200  # of one search, at most
_DIGITS = 9  # of the demand's worth: what wastes equally to so many is the same in another order
_FULL = 1e-9  # instances: a pool this little over full is full
_FILLED = 1e-6  # instances: a pool this little short of full cannot be filled


@dataclass(frozen=True, slots=True)
class _Begun:
    """Flows that carry a part of the demand; one row each.

    Attributes:
        paths: (begun, steps) which of the near paths were taken.
        flows: (begun, steps) samples/s.
        busy: (begun, pools) instances kept busy.
        carried: (begun,) samples/s of all flows.
        lost: (begun,) by their reduced costs.
        idle: (begun,) price of what is idle in their pools.
    """

    paths: Ints
    flows: Floats
    busy: Floats
    carried: Floats
    lost: Floats
    idle: Floats

    def __len__(self) -> int:
        return len(self.carried)


@dataclass(frozen=True, slots=True)
class _Steps:
    """A flow more: from which of the begun, on which path, and what they come to."""

    begun: Ints
    path: Ints
    flow: Floats
    carried: Floats
    lost: Floats
    idle: Floats

    def __len__(self) -> int:
        return len(self.begun)

    def only(self, kept: Ints) -> _Steps:
        return _Steps(
            begun=self.begun[kept],
            path=self.path[kept],
            flow=self.flow[kept],
            carried=self.carried[kept],
            lost=self.lost[kept],
            idle=self.idle[kept],
        )


class Beam:
    """Searches for one model's bundles at given prices."""

    def __init__(
        self, table: PathTable, cover: Cover, terms: Terms, unit_prices: Floats, demand: float
    ) -> None:
        """Choose the paths.

        Args:
            table: the model's paths.
            cover: cheapest items at these prices, for this demand.
            terms: how GPUs are counted.
            unit_prices: of a unit, per class.
            demand: samples/s.
        """
        self._table, self._cover, self._terms, self._demand = table, cover, terms, demand
        prices = unit_prices * np.array(terms.per_gpu)
        costs = table.use @ prices
        self._worth = float(costs.min())
        self._near = _near(table, costs, (1 + _REACH) * self._worth)
        self._costs = costs[self._near] - self._worth
        self._loads = table.loads[self._near]
        self._idle = table.idle_prices(prices)[self._near]
        keys = table.pool_keys()[self._near]
        known, pools = np.unique(keys, return_inverse=True)
        self._pools: Ints = pools.reshape(keys.shape)  # where there is no stage, the load is 0
        self._begin = _Begun(
            paths=np.empty((1, 0), dtype=np.int64),
            flows=np.empty((1, 0)),
            busy=np.zeros((1, len(known))),
            carried=np.zeros(1),
            lost=np.zeros(1),
            idle=np.zeros(1),
        )
        self._least = cover.least - self._worth * demand  # waste of the cheapest bundle so far
        self._dearer = _DEARER * float(prices @ terms.count)
        # Waste, flows, and the cells that are left to items.
        self._found: list[tuple[float, list[tuple[int, float]], int]] = []

    def bundles(self) -> list[Bundle]:
        """Return bundles hardly dearer than the cheapest found, cheapest first."""
        begun = self._begin
        for _ in range(_STEPS):
            steps = self._steps(begun)
            if not len(steps):
                break
            self._finish(begun, steps)
            begun = self._taken(begun, steps.only(self._chosen(steps)))
        best: dict[Units, Bundle] = {}
        seen: set[float] = set()
        for waste, own, left in sorted(self._found, key=lambda each: each[0]):
            alike = round(waste / (self._worth * self._demand), _DIGITS)
            if waste <= self._least + self._dearer and alike not in seen:
                seen.add(alike)
                bundle = self._bundle(own, left)
                best.setdefault(bundle.units, bundle)
        return list(best.values())

    def _steps(self, begun: _Begun) -> _Steps:
        """Return every flow that may be next and wastes little."""
        fills = self._fills(begun)
        work = np.cumsum(fills.sum(axis=(1, 2)))
        looked_at = np.arange(min(len(begun), int(np.searchsorted(work, _WORK)) + 1))
        lots = np.split(looked_at, np.flatnonzero(np.diff(work[looked_at] // _AT_ONCE)) + 1)
        parts = [_columns(self._steps_of(begun, fills, lot)) for lot in lots]
        return _Steps(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def _fills(self, begun: _Begun) -> Ints:
        """Return (begun, paths, stages) how many times a path's pool may be filled."""
        busy = begun.busy[:, self._pools]
        left = self._demand - begun.carried
        most = np.floor(busy + self._loads * left[:, None, None] + _FULL)
        times = most - np.floor(busy + _FILLED)
        return np.where(self._loads > 0, times, 0).astype(np.int64)

    def _steps_of(self, begun: _Begun, fills: Ints, lot: Ints) -> _Steps:
        """Return the next flows of some: those that fill a pool, or meet the demand."""
        times = fills[lot].ravel()
        at = np.repeat(np.arange(len(times)), times)
        nth = np.arange(len(at)) - np.repeat(np.cumsum(times) - times, times) + 1
        row, path, stage = np.unravel_index(at, fills[lot].shape)
        busy = begun.busy[lot[row], self._pools[path, stage]]
        filling = (np.floor(busy + _FILLED) + nth - busy) / self._loads[path, stage]
        paths = len(self._near)
        row = lot[np.concatenate([row, np.repeat(np.arange(len(lot)), paths)])]
        path = np.concatenate([path, np.tile(np.arange(paths), len(lot))])
        meeting = np.repeat(self._demand - begun.carried[lot], paths)
        return self._weighed(begun, row, path, np.concatenate([filling, meeting]))

    def _weighed(self, begun: _Begun, row: Ints, path: Ints, flow: Floats) -> _Steps:
        """Return steps with what they come to, those that waste too much left out."""
        lost = begun.lost[row] + self._costs[path] * flow
        few = np.flatnonzero(lost <= self._least + self._dearer)
        row, path, flow, lost = row[few], path[few], flow[few], lost[few]
        idle = begun.idle[row]
        for stage in range(self._pools.shape[1]):
            pool, price = self._pools[path, stage], self._idle[path, stage]
            busy = begun.busy[row, pool]
            idle += price * (_idle(busy + self._loads[path, stage] * flow) - _idle(busy))
        few = np.flatnonzero(lost + (1 - _HOPE) * idle <= self._least)
        steps = _Steps(row, path, flow, begun.carried[row] + flow, lost, idle)
        return steps.only(few)

    def _finish(self, begun: _Begun, steps: _Steps) -> None:
        """Complete steps with items, and take the bundles that waste least."""
        cells = np.floor(steps.carried / self._demand * CELLS + _FULL).astype(np.int64)
        left = np.maximum(0, CELLS - cells)
        rest = self._cover.rest[left] - self._worth * (self._demand - steps.carried)
        waste = steps.lost + steps.idle + rest
        self._least = min(self._least, float(waste.min()))
        good = np.flatnonzero(waste <= self._least + self._dearer)
        for step in good[np.argsort(waste[good], kind="stable")[:_BUNDLES]].tolist():
            row = int(steps.begun[step])
            paths = [*begun.paths[row].tolist(), int(steps.path[step])]
            flows = [*begun.flows[row].tolist(), float(steps.flow[step])]
            own = list(zip(self._near[paths].tolist(), flows, strict=True))
            self._found.append((float(waste[step]), own, int(left[step])))

    def _bundle(self, own: Sequence[tuple[int, float]], left: int) -> Bundle:
        """Return flows, and the cheapest items that carry what is left, as one bundle."""
        flows: defaultdict[int, float] = defaultdict(float)
        for path, flow in (*own, *self._cover.carrying(left)):
            flows[path] += flow
        return bundle_of(self._table, tuple(flows.items()), self._terms)

    def _chosen(self, steps: _Steps) -> Ints:
        """Return the steps to go on from: in each part of the demand those that waste least."""
        waste = steps.lost + (1 - _HOPE) * steps.idle
        carried = steps.carried / self._demand
        part = np.floor(carried * _PARTS)
        chosen = []
        for each in range(_PARTS):
            own = np.flatnonzero((part == each) & (carried < 1 - _FULL))
            if len(own) > _LOOKED_AT:
                own = own[np.argpartition(waste[own], _LOOKED_AT)[:_LOOKED_AT]]
            relative = np.round(waste[own] / (self._worth * self._demand), _DIGITS)
            _, first = np.unique(relative, return_index=True)
            chosen.append(own[first[:_GO_ON]])
        # The best of all parts come first: where the work is limited, the last do not go on.
        place = np.concatenate([np.arange(len(each)) for each in chosen])
        return np.concatenate(chosen)[np.argsort(place, kind="stable")]

    def _taken(self, begun: _Begun, steps: _Steps) -> _Begun:
        """Return the flows that steps lead to."""
        busy = begun.busy[steps.begun]
        every = np.arange(len(steps))
        for stage in range(self._pools.shape[1]):
            loads = self._loads[steps.path, stage] * steps.flow
            busy[every, self._pools[steps.path, stage]] += loads
        return _Begun(
            paths=np.column_stack([begun.paths[steps.begun], steps.path]),
            flows=np.column_stack([begun.flows[steps.begun], steps.flow]),
            busy=busy,
            carried=steps.carried,
            lost=steps.lost,
            idle=steps.idle,
        )


def _near(table: PathTable, costs: Floats, most: float) -> Ints:
    """Return the paths that cost least, and the cheapest that share a pool with the best of them.

    The latter may cost more: they carry little, but in instances that are there anyhow.
    """
    within = np.flatnonzero(costs <= most)
    within = within[np.argsort(costs[within], kind="stable")]
    keys = table.pool_keys()[within]
    best = keys[:_BEST]
    beside = np.flatnonzero(np.isin(keys, best[best >= 0]).any(axis=1))
    return within[np.union1d(np.arange(min(len(within), _PATHS)), beside[:_BESIDE])]


def _idle(busy: Floats) -> Floats:
    """Return the parts of instances that are idle in pools no larger than they must be."""
    return np.ceil(busy - _FULL) - busy


def _columns(steps: _Steps) -> tuple[Ints, Ints, Floats, Floats, Floats, Floats]:
    return steps.begun, steps.path, steps.flow, steps.carried, steps.lost, steps.idle

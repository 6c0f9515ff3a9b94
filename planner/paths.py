"""Paths: the ways through a model as arrays, and what may be asked of them.

A path is one feasible way of a batch through a model: contiguous block ranges, a GPU class, a
share and a batch size for each. There can be millions, so they stay numpy arrays and become
`CandidatePath` objects only where a solver is to choose among them. `planner.enumeration` finds
them. Knows nothing of counts or the solver.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.domain.cluster import GpuClass
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.units import US_PER_SECOND
from penstock.latency.transfer import link_us, sample_transfer_us
from planner.candidates import CandidatePath, CandidatePool
from planner.inputs import ModelInputs, PlannerInputs

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

StageKey: TypeAlias = tuple[ModelName, int, int, GpuClassName, int]  # blocks; class; m

_BRIM = 1e-9  # instances: a pool this little over full is full


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """All stages of a model that fit into memory; one row each, whatever their position."""

    first: Ints
    end: Ints
    gpu_class: Ints
    m: Ints
    batch: Ints
    latency_us: Ints

    def where(self, chosen: NDArray[np.bool_]) -> Ints:
        """Return the rows of a mask."""
        return np.flatnonzero(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Partial paths with the same end and the same largest batch."""

    stages: Ints  # (paths, stages so far)
    spent_us: Ints


class PathTable:
    """The paths of one model.

    Attributes:
        model: whose they are.
        stages: (paths, most stages) rows of the stage table, -1 where a path has fewer.
        loads: (paths, most stages) instances kept busy per sample/s.
        use: (paths, classes) GPUs kept busy per sample/s.
        latency_us: (paths,) everything but the margin.
    """

    def __init__(self, model: ModelInputs, inputs: PlannerInputs, rows: Stages) -> None:
        self.model = model
        self._classes = inputs.gpu_classes
        self._options = inputs.options
        self._rows = rows
        self._link_us = by_class_pair(self._classes, model.cut_bytes, exact=True)
        self.stages: Ints = np.empty((0, 1), dtype=np.int64)
        self.latency_us: Ints = np.empty(0, dtype=np.int64)
        self.build_us: Ints = np.empty(0, dtype=np.int64)
        self.loads: Floats = np.empty((0, 1))
        self.use: Floats = np.empty((0, len(self._classes)))
        self._pools: dict[tuple[int, int, tuple[GpuClassName, ...]], CandidatePool] = {}
        self._paths: dict[int, CandidatePath] = {}

    def __len__(self) -> int:
        return len(self.stages)

    def fill(self, grown: Sequence[tuple[Grown, int]]) -> None:
        """Take complete paths, each lot with its allowance for batch building."""
        most = max((lot.stages.shape[1] for lot, _ in grown), default=1)
        widened = [
            np.pad(lot.stages, ((0, 0), (0, most - lot.stages.shape[1])), constant_values=-1)
            for lot, _ in grown
        ]
        if not widened:
            return
        self.stages = np.concatenate(widened)
        self.build_us = np.concatenate([np.full(len(lot.spent_us), us) for lot, us in grown])
        self.latency_us = np.concatenate([lot.spent_us for lot, _ in grown]) + self.build_us
        self._weigh()

    def _weigh(self) -> None:
        """Work out loads and use."""
        rows, stages = self._rows, self.stages
        real = stages >= 0
        gpu_class, m = rows.gpu_class[stages], rows.m[stages]
        busy_us = np.maximum(1, rows.latency_us[stages]) / rows.batch[stages]
        for cut in range(stages.shape[1] - 1):
            crossing = real[:, cut + 1]
            place = np.where(crossing, rows.end[stages[:, cut]] - 1, 0)
            link_us = self._link_us[place, gpu_class[:, cut], gpu_class[:, cut + 1]]
            for side in (cut, cut + 1):
                sharers = m[:, side] * self._gpus_per_server()[gpu_class[:, side]]
                moving_us = np.where(crossing, link_us * sharers, 0.0)
                busy_us[:, side] = np.maximum(busy_us[:, side], moving_us)
        self.loads = np.where(real, busy_us / US_PER_SECOND, 0.0)
        self.use = np.zeros((len(stages), self._width()))
        for position in range(stages.shape[1]):
            where = np.arange(len(stages)), gpu_class[:, position]
            self.use[where] += self.loads[:, position] / m[:, position]

    def _width(self) -> int:
        return len(self._classes)

    def _gpus_per_server(self) -> Ints:
        return np.array([each.gpus_per_server for each in self._classes], dtype=np.int64)

    def pool_keys(self) -> Ints:
        """Return (paths, most stages) numbers: equal where paths would share a pool; -1: none."""
        positions = np.arange(self.stages.shape[1])
        keys = self.stages * self.stages.shape[1] + positions
        return np.where(self.stages >= 0, keys, -1)

    def idle_prices(self, prices: Floats) -> Floats:
        """Return (paths, most stages) what an idle instance costs; nothing where there is none.

        Args:
            prices: of a GPU, per class.
        """
        each: Floats = prices[self._rows.gpu_class[self.stages]] / self._rows.m[self.stages]
        return np.where(self.stages >= 0, each, 0.0)

    def units(self, paths: Ints, flow: Floats, per_gpu: Sequence[int]) -> Ints:
        """Return (paths, classes) parts of GPUs that flows take in pools of their own.

        Args:
            paths: rows of the table.
            flow: samples/s on each.
            per_gpu: parts a GPU of each class is counted in: a multiple of every share's
                denominator; 1 if a pool's GPUs are its own.
        """
        stages = self.stages[paths]
        count = np.ceil(self.loads[paths] * flow[:, None] - _BRIM).astype(np.int64)
        whole = np.array(per_gpu, dtype=np.int64)[self._rows.gpu_class[stages]]
        parts = -(-count * whole // self._rows.m[stages])
        classes = np.where(stages >= 0, self._rows.gpu_class[stages], -1)
        taken = [np.where(classes == each, parts, 0).sum(axis=1) for each in range(self._width())]
        return np.stack(taken, axis=1)

    def denominator(self, gpu_class: int) -> int:
        """Return the least common multiple of the shares' denominators on a class."""
        return int(np.lcm.reduce(self._rows.m[self._rows.gpu_class == gpu_class], initial=1))

    def within(self, paths: Ints) -> Ints:
        """Return the paths that need no pool but those of the given ones."""
        keys = self.pool_keys()
        open_to = np.append(np.unique(keys[paths]), -1)
        return np.flatnonzero(np.isin(keys, open_to).all(axis=1))

    def undominated(self) -> Ints:
        """Return the paths that are worth a private pool per stage, for compat mode.

        With pools of its own, and as the only path of its classes, a path can take the place of
        another with the same classes and shares, instance by instance, if it keeps none of them
        busier. Where paths share pools this does not hold, and none may be dropped.
        """
        rows, real = self._rows, self.stages >= 0
        kinds = np.stack([rows.gpu_class[self.stages], rows.m[self.stages]], axis=2)
        kinds = np.where(real[:, :, None], kinds, -1).reshape(len(self), -1)
        _, kind = np.unique(kinds, axis=0, return_inverse=True)
        groups = (
            np.flatnonzero(kind.ravel() == each) for each in range(int(kind.max(initial=-1)) + 1)
        )
        kept = [_least(self.loads, group) for group in groups]
        return np.sort(np.concatenate(kept)) if kept else np.arange(0)

    def running(self, stages: Container[StageKey]) -> Ints:
        """Return the paths whose stages all run already, at whatever batch."""
        return np.flatnonzero((self._runs(stages) | (self.stages < 0)).all(axis=1))

    def touching(self, stages: Container[StageKey]) -> Ints:
        """Return the paths of which a stage runs already, at whatever batch."""
        return np.flatnonzero(self._runs(stages).any(axis=1))

    def _runs(self, stages: Container[StageKey]) -> NDArray[np.bool_]:
        """Return (paths, most stages) whether there is a stage and it runs."""
        rows, model = self._rows, self.model.served.name
        names = [each.name for each in self._classes]
        keys = zip(
            rows.first.tolist(),
            rows.end.tolist(),
            rows.gpu_class.tolist(),
            rows.m.tolist(),
            strict=True,
        )
        runs = [(model, first, end, names[at], m) in stages for first, end, at, m in keys]
        return np.array([*runs, False])[self.stages]  # the last is for -1: there is no stage

    def candidates(self, chosen: Ints) -> list[CandidatePath]:
        """Return chosen paths as objects, always the same; those with a stage in common share it.

        In compat mode pools are shared only by paths with the same classes in the same order.
        """
        for number in map(int, chosen):
            if number not in self._paths:
                self._paths[number] = self._candidate(number)
        return [self._paths[number] for number in map(int, chosen)]

    def flows(self, flows: Mapping[CandidatePath, float]) -> tuple[tuple[int, float], ...]:
        """Return (path, samples/s) of the flows that there are along paths of this table."""
        numbers = {path: number for number, path in self._paths.items()}
        return tuple(
            (numbers[path], flow) for path, flow in flows.items() if flow > 0 and path in numbers
        )

    def _candidate(self, number: int) -> CandidatePath:
        rows = [int(row) for row in self.stages[number] if row >= 0]
        classes = [self._classes[self._rows.gpu_class[row]] for row in rows]
        private = self._options.mode == "compat"
        route = tuple(each.name for each in classes) if private else ()
        cuts = [int(self._rows.end[row]) - 1 for row in rows[:-1]]
        sizes = tuple(self.model.cut_bytes[cut] for cut in cuts)
        return CandidatePath(
            model=self.model.served.name,
            pools=tuple(self._pool(row, place, route) for place, row in enumerate(rows)),
            cut_bytes=sizes,
            transfers_us=tuple(
                sample_transfer_us(size, sender, receiver)
                for size, sender, receiver in zip(sizes, classes, classes[1:], strict=False)
            ),
            batch_build_us=int(self.build_us[number]),
            latency_us=int(self.latency_us[number]),
        )

    def _pool(self, row: int, position: int, route: tuple[GpuClassName, ...]) -> CandidatePool:
        key = row, position, route
        if key not in self._pools:
            rows, model = self._rows, self.model
            first, end, batch = int(rows.first[row]), int(rows.end[row]), int(rows.batch[row])
            self._pools[key] = CandidatePool(
                model=model.served.name,
                position=position,
                first_block=first,
                end_block=end,
                gpu_class=self._classes[rows.gpu_class[row]],
                m=int(rows.m[row]),
                batch=batch,
                latency_us=int(rows.latency_us[row]),
                memory_bytes=model.stage_memory_bytes(first, end, batch),
                route=route,
            )
        return self._pools[key]


def _least(loads: Floats, group: Ints) -> Ints:
    """Return the rows of a group that no other is below or equal to in every column."""
    order = group[np.lexsort(loads[group].T[::-1])]
    kept: list[int] = []
    for row in order:
        if not (loads[kept] <= loads[row]).all(axis=1).any():
            kept.append(int(row))
    return np.array(kept, dtype=np.int64)


def by_class_pair(classes: Sequence[GpuClass], cut_bytes: Sequence[int], *, exact: bool) -> Floats:
    """Return (cuts, sender, receiver) transfer times of one sample.

    Args:
        classes: of senders and of receivers.
        cut_bytes: that one sample carries over each cut.
        exact: with fractions of a microsecond, as throughputs need them; else rounded up.
    """
    measure = link_us if exact else sample_transfer_us
    times = [[[measure(size, a, b) for b in classes] for a in classes] for size in cut_bytes]
    return np.array(times, dtype=float).reshape(len(cut_bytes), len(classes), len(classes))

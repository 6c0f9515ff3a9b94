"""Every way through a model, tried one after the other. Shares no code with the planner.

Kept are the ways that memory, pins and bans, batches and the SLO allow; each with how busy one
sample per second keeps an instance of each of its stages. Transfer times are exact fractions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from penstock.domain.cluster import Cluster, GpuClass, ServedModel
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile

Profiles: TypeAlias = Mapping[tuple[ModelName, GpuClassName], LatencyProfile]


class Stage(NamedTuple):
    """A stage, and therefore the pool of its instances: class number c, share 1/m, batch b."""

    position: int
    first: int
    end: int
    c: int
    m: int
    b: int


Way: TypeAlias = tuple[Stage, ...]


@dataclass(frozen=True)
class Routes:
    """All ways of one model, and how busy they keep the instances they lead through.

    Attributes:
        loads: by way, for each stage, the instances kept busy per sample/s.
    """

    ways: Sequence[Way]
    loads: Mapping[Way, tuple[float, ...]]


def find_routes(
    cluster: Cluster, profiles: Profiles, model: ServedModel, rate_rps: float
) -> Routes:
    """Return every way of a model through the fleet that memory and the SLO allow."""
    tables = [profiles.get((model.name, each.name)) for each in cluster.gpu_classes]
    blocks = next(each.blocks for each in tables if each is not None)
    options = cluster.options
    cells = [_cells(each) for each in tables]
    kinds = [
        (c, m, b)
        for c, each in enumerate(cluster.gpu_classes)
        if _may_use(model, each)
        for m, b in sorted({(m, b) for m, b, _ in cells[c]})
        if m <= each.max_share_denominator and b <= options.max_batch
    ]
    mixed = options.rebatch and options.mode == "general"
    loads: dict[Way, tuple[float, ...]] = {}
    for count in range(1, min(blocks, options.max_stages, model.max_stages or blocks) + 1):
        for way in _ways(blocks, count, kinds):
            if _batches_fit([stage.b for stage in way], mixed=mixed):
                view = _View(cluster, model, tables, cells, way)
                if view.fits_memory() and view.in_time(rate_rps):
                    loads[way] = view.loads()
    return Routes(list(loads), loads)


def _ways(blocks: int, count: int, kinds: Sequence[tuple[int, int, int]]) -> Iterator[Way]:
    """Yield every way of so many stages, whatever it takes."""
    for cuts in itertools.combinations(range(1, blocks), count - 1):
        ranges = list(itertools.pairwise((0, *cuts, blocks)))
        for chosen in itertools.product(kinds, repeat=count):
            yield tuple(
                Stage(position, *ranges[position], *chosen[position]) for position in range(count)
            )


def _cells(profile: LatencyProfile | None) -> dict[tuple[int, int, int], int]:
    """Return latency by (m, batch, block)."""
    rows = () if profile is None else profile.rows
    return {
        (row.share.denominator, row.batch, row.block): row.latency_mean_us
        for row in rows
        if row.share.numerator == 1
    }


def _may_use(model: ServedModel, gpu_class: GpuClass) -> bool:
    pinned = not model.gpu_classes or gpu_class.name in model.gpu_classes
    return pinned and gpu_class.name not in model.forbidden_gpu_classes


def _batches_fit(batches: Sequence[int], *, mixed: bool) -> bool:
    """Tell whether batches are equal, or if they may differ are gathered or split evenly."""
    if not mixed:
        return len(set(batches)) == 1
    largest = batches[0]
    for batch in batches[1:]:
        if batch % largest and largest % batch:
            return False
        largest = max(largest, batch)
    return True


class _View:
    """One way, and what it takes."""

    def __init__(
        self,
        cluster: Cluster,
        model: ServedModel,
        tables: Sequence[LatencyProfile | None],
        cells: Sequence[Mapping[tuple[int, int, int], int]],
        way: Way,
    ) -> None:
        self._options, self._model, self._way = cluster.options, model, way
        self._classes = [cluster.gpu_classes[stage.c] for stage in way]
        self._tables = tables
        self._latencies = [
            sum(cells[c][m, b, block] for block in range(first, end))
            for _, first, end, c, m, b in way
        ]
        profile = self._profile(way[0])
        self._transfers = [  # exact, in µs per sample
            Fraction(profile.cut_bytes[left.end - 1] * 8)
            / (Fraction(min(one.network_gbps, other.network_gbps)) * 1000)
            for left, (one, other) in zip(way, itertools.pairwise(self._classes), strict=False)
        ]

    def _profile(self, stage: Stage) -> LatencyProfile:
        found = self._tables[stage.c]
        assert found is not None
        return found

    def fits_memory(self) -> bool:
        for stage, gpu_class in zip(self._way, self._classes, strict=True):
            profile, held = self._profile(stage), slice(stage.first, stage.end)
            needed = sum(profile.weight_bytes[held])
            needed += stage.b * max(profile.activation_bytes[held])
            needed += self._options.workspace_bytes
            if needed > Fraction(gpu_class.memory_bytes, stage.m):
                return False
        return True

    def in_time(self, rate_rps: float) -> bool:
        groups = list(itertools.accumulate((stage.b for stage in self._way), max))
        latency = self._options.hop_overhead_us * (len(self._way) + 1)
        for stage, group, alone in zip(self._way, groups, self._latencies, strict=True):
            latency += group // stage.b * alone
        for group, each in zip(groups, self._transfers, strict=False):
            latency += group * math.ceil(each)
        waiting = self._options.batch_build_factor * (groups[-1] - 1) * 1e6
        latency += math.ceil(waiting / rate_rps)
        model = self._model
        margin = model.margin_us
        if margin is None:
            margin = round(model.slo_us * self._options.slo_margin)
        allowed = model.slo_us - margin
        return latency <= allowed and latency <= (model.max_latency_us or allowed)

    def loads(self) -> tuple[float, ...]:
        around = [Fraction(0), *self._transfers, Fraction(0)]
        found = []
        for place, (stage, gpu_class) in enumerate(zip(self._way, self._classes, strict=True)):
            computing = Fraction(max(1, self._latencies[place]), stage.b)
            moving = max(around[place], around[place + 1]) * stage.m * gpu_class.gpus_per_server
            found.append(float(max(computing, moving)) / 1e6)
        return tuple(found)

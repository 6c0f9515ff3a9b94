"""The best plan for a tiny fleet, found by trying all of them. Shares no code with the planner.

The steps, each plain enough to be believed:

1. Every way through a model is listed (`tests.support.ways`).
2. Ways fall into families that have no stage in common with each other; their flows add up, so
   each family is looked at by itself. In compat mode a family is what one pipeline may be chosen
   from: the ways over one tuple of GPU classes.
3. For a family, every number of instances for every stage that the GPUs have room for. For each,
   the most flow: a linear program over the family's ways (`tests.support.simplex`). Kept is the
   most flow for each *holding*: how many instances of each size there are on each GPU class.
4. Holdings of families, then of models, are added up in every combination. GPUs are counted by
   trying every layout of the shares.

What cannot be best is left out only where that is plain: more instances never give less flow, and
a family's flow is at most what the stages that hold one block can carry together.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import TypeAlias

from penstock.domain.cluster import Cluster
from penstock.domain.ids import ModelName
from tests.support.simplex import greatest_sum
from tests.support.ways import Profiles, Routes, Stage, Way, find_routes

_EQUAL = 1e-9  # relative: closer than this, two numbers are the same

Held: TypeAlias = tuple[int, ...]  # instances, in the order of `_Fleet.sizes`
Gpus: TypeAlias = tuple[int, ...]  # GPUs of each class
Flows: TypeAlias = dict[Held, float]  # most samples/s of what is held
Choice: TypeAlias = tuple[tuple[int, ...], float]  # what one model takes of the fleet, its flow


def best_value(
    cluster: Cluster, profiles: Profiles, rates: Mapping[ModelName, float]
) -> float | None:
    """Return the best value of the objective that the cluster's options name.

    Args:
        cluster: at most a handful of GPUs.
        profiles: by model and GPU class.
        rates: samples/s at which batches fill.

    Returns:
        None if there is no plan. A greatest total throughput may be 0.
    """
    fleet = _Fleet(cluster)
    choices = [
        _choices(
            cluster,
            fleet,
            find_routes(cluster, profiles, model, rates[model.name]),
            model.rate_rps,
        )
        for model in cluster.models
    ]
    values = []
    for chosen in itertools.product(*choices):
        gpus = fleet.gpus_together([takes for takes, _ in chosen])
        if gpus is not None and _affordable(cluster, gpus):
            values.append(_value(cluster, gpus, [flow for _, flow in chosen]))
    if cluster.options.objective in {"least-cost", "fewest-gpus"}:
        return min(values, default=None)
    best = max(values, default=None)
    return None if best == 0 and cluster.options.objective == "max-min" else best


def _affordable(cluster: Cluster, gpus: Gpus) -> bool:
    most = cluster.options.max_price_per_hour
    return most is None or _price(cluster, gpus) <= most * (1 + _EQUAL)


def _value(cluster: Cluster, gpus: Gpus, flows: Sequence[float]) -> float:
    match cluster.options.objective:
        case "max-min":
            pairs = zip(flows, cluster.models, strict=True)
            return min(flow / model.weight for flow, model in pairs)
        case "goodput":
            return sum(flows)
        case "least-cost":
            return _price(cluster, gpus)
        case "fewest-gpus":
            return sum(gpus)


def _price(cluster: Cluster, gpus: Gpus) -> float:
    prices = (each.price_per_hour for each in cluster.gpu_classes)
    return sum((price or 0.0) * used for price, used in zip(prices, gpus, strict=True))


# -------------------------------------------------------------------------------- GPUs and rooms


class _Fleet:
    """What instances can be held at once, and how many GPUs they take.

    A size is a kind of instance that matters for counting GPUs: its class and share, and its
    position where only the instances of one position may share a GPU. Whole GPUs are never shared.
    """

    def __init__(self, cluster: Cluster) -> None:
        options = cluster.options
        self._compat = options.mode == "compat"
        self.apart = self._compat or options.packing == "per-stage"
        self._rooms = [max(0, each.count - options.spare_gpus) for each in cluster.gpu_classes]
        self.sizes: list[tuple[int, int, int]] = []  # (c, position, m)
        for c, each in enumerate(cluster.gpu_classes):
            self.sizes.append((c, 0, 1))
            for m in range(2, each.max_share_denominator + 1):
                places = [self._place(position, m) for position in range(options.max_stages)]
                self.sizes += [(c, place, m) for place in dict.fromkeys(places)]
        self._number = {size: number for number, size in enumerate(self.sizes)}
        self.nothing: Held = (0,) * len(self.sizes)
        self._gpus = self._holdings()
        self.holdings = list(self._gpus)

    def _place(self, position: int, m: int) -> int:
        return position if self.apart and m > 1 else 0

    def number_of(self, stage: Stage) -> int:
        """Return the number of a stage's size."""
        return self._number[stage.c, self._place(stage.position, stage.m), stage.m]

    def can_hold(self, held: Held) -> bool:
        return held in self._gpus

    def gpus(self, held: Held) -> Gpus:
        """Return the GPUs of each class that one model takes."""
        return self._gpus[held]

    def gpus_together(self, takes: Sequence[tuple[int, ...]]) -> Gpus | None:
        """Return the GPUs that several models take; None if there are not as many.

        Args:
            takes: GPUs of each model if models never share one, else what each holds.
        """
        together = tuple(map(sum, zip(*takes, strict=True)))
        if not self.apart:
            return self._gpus.get(together)
        return together if self._fit(together) else None

    def _fit(self, gpus: Gpus) -> bool:
        return all(used <= room for used, room in zip(gpus, self._rooms, strict=True))

    def _holdings(self) -> dict[Held, Gpus]:
        """Return everything that can be held at once, smaller before larger, and its GPUs."""
        found: dict[Held, Gpus] = {}
        layer = {self.nothing: self._count(self.nothing)}
        while layer:
            found |= layer
            numbers = range(len(self.sizes))
            larger = dict.fromkeys(one_more(held, number) for held in layer for number in numbers)
            counted = {held: self._count(held) for held in larger}
            layer = {held: gpus for held, gpus in counted.items() if self._fit(gpus)}
        return found

    def _count(self, held: Held) -> Gpus:
        used = [0] * len(self._rooms)
        shared: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for (c, position, m), count in zip(self.sizes, held, strict=True):
            if m == 1:
                used[c] += count
            elif count:
                shared[c, position].append((m, count))
        for (c, _), counts in shared.items():
            if self._compat:  # as published: the sum is rounded up
                used[c] += math.ceil(sum(Fraction(count, m) for m, count in counts))
            else:
                used[c] += fewest_gpus(tuple(counts))
        return tuple(used)


def one_more(held: Held, number: int) -> Held:
    """Return what is held with one more instance of that size."""
    return (*held[:number], held[number] + 1, *held[number + 1 :])


@cache
def fewest_gpus(counts: tuple[tuple[int, int], ...]) -> int:
    """Return the fewest GPUs on which shares fit: every way to lay them out is tried.

    Args:
        counts: (m, how many of 1/m).
    """
    whole = math.lcm(*(m for m, _ in counts))
    pieces = [whole // m for m, count in counts for _ in range(count)]
    layouts: set[tuple[int, ...]] = {()}  # what is left of each GPU
    for piece in pieces:
        layouts = {after for rooms in layouts for after in _laid(piece, rooms, whole)}
    return min(map(len, layouts))


def _laid(piece: int, rooms: tuple[int, ...], whole: int) -> Iterator[tuple[int, ...]]:
    """Yield what is left of each GPU when a piece is laid on one of them, or on another."""
    for place, room in enumerate((*rooms, whole)):
        if room >= piece:
            others = (*rooms[:place], *rooms[place + 1 :])
            yield tuple(sorted((*others, room - piece)))


# ---------------------------------------------------------------------------- flows of one model


def _choices(
    cluster: Cluster, fleet: _Fleet, routes: Routes, rate_rps: float | None
) -> list[Choice]:
    """Return what one model can have: more flow only for more of the fleet, its rate at least."""
    total: Flows = {fleet.nothing: 0.0}
    for family in _families(cluster, routes.ways):
        if cluster.options.mode == "compat":
            flows = _flows_of_one(fleet, routes, family)
        else:
            flows = _flows_together(fleet, routes, family)
        total = _added(fleet, total, flows)
    best: dict[tuple[int, ...], float] = {}
    for held, flow in total.items():
        takes = fleet.gpus(held) if fleet.apart else held
        if flow >= (rate_rps or 0.0) * (1 - _EQUAL):
            best[takes] = max(flow, best.get(takes, 0.0))
    return list(best.items())


def _families(cluster: Cluster, found: Sequence[Way]) -> list[list[Way]]:
    """Return the ways in groups whose flows add up."""
    if cluster.options.mode == "compat":
        tuples: defaultdict[tuple[int, ...], list[Way]] = defaultdict(list)
        for way in found:
            tuples[tuple(stage.c for stage in way)].append(way)
        return list(tuples.values())
    families: list[tuple[set[Stage], list[Way]]] = []
    for way in found:
        related = [each for each in families if not each[0].isdisjoint(way)]
        stages = set(way).union(*(each[0] for each in related))
        members = [member for each in related for member in each[1]]
        families = [each for each in families if each not in related]
        families.append((stages, [*members, way]))
    return [members for _, members in families]


def _added(fleet: _Fleet, one: Flows, other: Flows) -> Flows:
    """Return the most flow of both together, for everything that can be held."""
    best: Flows = {}
    for held, flow in one.items():
        for more, gained in other.items():
            both = tuple(map(int.__add__, held, more))
            if fleet.can_hold(both) and best.get(both, -1.0) < flow + gained:
                best[both] = flow + gained
    return _without_waste(fleet, best)


def _without_waste(fleet: _Fleet, flows: Flows) -> Flows:
    """Return only what is better than everything that is part of it."""
    reached: Flows = {}
    kept: Flows = {}
    for held in fleet.holdings:
        known = _of_parts(reached, held)
        flow = flows.get(held, -1.0)
        reached[held] = max(known, flow)
        if flow > known:
            kept[held] = flow
    return kept


def _of_parts(reached: Flows, held: Held) -> float:
    """Return the most flow with one instance less, of any size."""
    parts = (
        (*held[:number], count - 1, *held[number + 1 :])
        for number, count in enumerate(held)
        if count
    )
    return max((reached[part] for part in parts), default=-1.0)


def _flows_of_one(fleet: _Fleet, routes: Routes, family: Sequence[Way]) -> Flows:
    """Return the most flow of one pipeline, with pools of its own, out of a family."""
    best: Flows = {fleet.nothing: 0.0}
    for way in family:
        loads = routes.loads[way]
        for held, counts in _allocations(fleet, way):
            flow = min(n / load for n, load in zip(counts, loads, strict=True))
            best[held] = max(flow, best.get(held, 0.0))
    return _without_waste(fleet, best)


def _flows_together(fleet: _Fleet, routes: Routes, family: Sequence[Way]) -> Flows:
    """Return the most flow of all ways of a family together."""
    stages = list(dict.fromkeys(stage for way in family for stage in way))
    subset = _Subsets(routes, family, stages)
    tried: defaultdict[Held, list[tuple[float, tuple[int, ...]]]] = defaultdict(list)
    for held, counts in _allocations(fleet, stages):
        if subset.all_busy(counts):
            tried[held].append((subset.at_most(counts), counts))
    reached: Flows = {}
    kept: Flows = {}
    for held in fleet.holdings:
        known = best = max(0.0, _of_parts(reached, held))
        for at_most, counts in sorted(tried.get(held, ()), reverse=True):
            if at_most <= best * (1 + _EQUAL):
                break
            best = max(best, subset.most_flow(counts))
        reached[held] = best
        if best > known or held == fleet.nothing:
            kept[held] = best
    return kept


def _allocations(fleet: _Fleet, stages: Sequence[Stage]) -> Iterator[tuple[Held, tuple[int, ...]]]:
    """Yield every number of instances for each stage that the GPUs have room for."""
    found: list[tuple[Held, tuple[int, ...]]] = [(fleet.nothing, ())]
    for stage in stages:
        number = fleet.number_of(stage)
        longer = []
        for held, counts in found:
            more, count = held, 0
            while fleet.can_hold(more):
                longer.append((more, (*counts, count)))
                more, count = one_more(more, number), count + 1
        found = longer
    return (each for each in found if any(each[1]))


class _Subsets:
    """What the ways of a family can carry when only some of their stages have instances."""

    def __init__(self, routes: Routes, family: Sequence[Way], stages: Sequence[Stage]) -> None:
        self._loads, self._family, self._stages = routes.loads, family, stages
        self._known: dict[tuple[bool, ...], list[Way]] = {}

    def _usable(self, counts: tuple[int, ...]) -> list[Way]:
        """Return the ways all of whose stages have instances; none if an instance has no way."""
        key = tuple(map(bool, counts))
        if key not in self._known:
            there = {stage for stage, used in zip(self._stages, key, strict=True) if used}
            found = [way for way in self._family if there.issuperset(way)]
            busy = {stage for way in found for stage in way}
            self._known[key] = found if busy == there else []
        return self._known[key]

    def all_busy(self, counts: tuple[int, ...]) -> bool:
        """Tell whether every instance has a way; without it another allocation is as good."""
        return bool(self._usable(counts))

    def at_most(self, counts: tuple[int, ...]) -> float:
        """Return what no flow can exceed: what the stages that hold one block carry together."""
        least: dict[Stage, float] = {}
        for way in self._usable(counts):
            for stage, load in zip(way, self._loads[way], strict=True):
                least[stage] = min(load, least.get(stage, load))
        instances = dict(zip(self._stages, counts, strict=True))
        return min(
            sum(instances[each] / least[each] for each in least if each.first <= block < each.end)
            for block in range(max(each.end for each in least))
        )

    def most_flow(self, counts: tuple[int, ...]) -> float:
        """Return the most flow with these instances."""
        usable = self._usable(counts)
        there = [(stage, n) for stage, n in zip(self._stages, counts, strict=True) if n]
        rows = [
            [self._loads[way][way.index(stage)] if stage in way else 0.0 for way in usable]
            for stage, _ in there
        ]
        return greatest_sum(rows, [float(n) for _, n in there])

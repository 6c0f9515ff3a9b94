"""The planner against brute force, and laws that hold for every fleet."""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from penstock.domain.cluster import Cluster, PlannerOptions
from penstock.domain.errors import Infeasible
from penstock.domain.ids import ModelName
from planner.inputs import Profiles, gather_inputs
from planner.planning import make_plan
from planner.search import best_solution
from planner.solve import SolverSettings
from planner.verify import find_faults
from tests.unit.planner.fleets import gpu_class, profile, served

Case = tuple[Cluster, Profiles]
_COUNTS = ((1,), (2,), (1, 1), (1, 2), (2, 1), (1, 1, 1), (1, 3), (2, 2), (1, 1, 2))
WHOLE, HALF = Fraction(1), Fraction(1, 2)


def exactly(solver: Literal["gscip", "highs"] = "highs") -> SolverSettings:
    return SolverSettings(
        solver=solver, deadline=time.perf_counter() + 60, relative_gap=0.0, seed=0
    )


@st.composite
def cases(draw: st.DrawFn, most_gpus: int = 3) -> Case:
    """Draw a fleet of a few GPUs and one or two models of up to three blocks.

    Each block runs well on some classes and badly on others, so that cutting often pays.
    """
    counts = draw(st.sampled_from([c for c in _COUNTS if sum(c) <= most_gpus]))
    classes = [
        gpu_class(
            f"class{number}",
            count,
            max_share_denominator=draw(st.integers(1, 2)) if count == 1 else 1,
            gpus_per_server=draw(st.integers(1, 2)),
            network_gbps=draw(st.sampled_from([1.0, 2.0, 10.0])),
        )
        for number, count in enumerate(counts)
    ]
    models, profiles = [], {}
    for number in range(draw(st.integers(1, 2))):
        name = ModelName(f"model{number}")
        blocks = draw(st.sampled_from([1, 2, 2, 3]))
        cuts = draw(st.lists(st.integers(0, 1 << 19), min_size=blocks - 1, max_size=blocks - 1))
        for each in classes:
            shares = [WHOLE, HALF][: each.max_share_denominator]
            slowness = [draw(st.sampled_from([1, 1, 6])) for _ in range(blocks)]
            latency = st.lists(st.integers(500, 2500), min_size=blocks, max_size=blocks)
            table = {
                (batch, share): [
                    us * factor for us, factor in zip(draw(latency), slowness, strict=True)
                ]
                for share in shares
                for batch in (1, 2)
            }
            profiles[name, each.name] = profile(name, each.name, table, cuts)
        weight, slo = draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.integers(4, 25))
        models.append(served(name, slo_ms=slo, weight=weight))
    options = PlannerOptions(
        max_stages=draw(st.sampled_from([1, 2, 2, 2])),
        max_batch=draw(st.integers(1, 2)),
        slo_margin=draw(st.sampled_from([0.0, 0.1, 0.4])),
        batch_build_factor=draw(st.sampled_from([0.0, 1.3])),
        hop_overhead_us=draw(st.sampled_from([0, 300])),
        relative_gap=0.0,
    )
    return Cluster(gpu_classes=tuple(classes), models=tuple(models), options=options), profiles


# A stage as plain numbers: (position, first, end, class index, m, batch).
Stage = tuple[int, int, int, int, int, int]
Way = tuple[Stage, ...]


class BruteForce:
    """Every path and every number of instances, tried one after the other."""

    def __init__(
        self, cluster: Cluster, profiles: Profiles, rates: Mapping[ModelName, float]
    ) -> None:
        self.cluster, self.profiles, self.rates = cluster, profiles, rates

    def best(self) -> float:
        """Return the greatest least weighted throughput; 0 if a model cannot be served."""
        tables = [self.model_table(index) for index in range(len(self.cluster.models))]
        counts = [each.count for each in self.cluster.gpu_classes]
        return max(
            min(
                flow / model.weight
                for (_, flow), model in zip(chosen, self.cluster.models, strict=True)
            )
            for chosen in itertools.product(*(table.items() for table in tables))
            if all(sum(used[c] for used, _ in chosen) <= count for c, count in enumerate(counts))
        )

    def model_table(self, index: int) -> dict[tuple[int, ...], float]:
        """Return the most throughput of one model by GPUs used of each class."""
        ways = list(self.ways(index))
        table: dict[tuple[int, ...], float] = {(0,) * len(self.cluster.gpu_classes): 0.0}
        stages = list(dict.fromkeys(stage for way in ways for stage in way))
        for instances in self.allocations(stages):
            used = self.gpus(instances)
            flow = self.most_flow(ways, instances, table.get(used, 0.0), index)
            table[used] = max(flow, table.get(used, 0.0))
        return table

    def ways(self, index: int) -> Iterator[Way]:
        model, options = self.cluster.models[index], self.cluster.options
        blocks = self.profiles[model.name, self.cluster.gpu_classes[0].name].blocks
        choices = [
            (c, m)
            for c, each in enumerate(self.cluster.gpu_classes)
            for m in range(1, each.max_share_denominator + 1)
        ]
        for batch in range(1, options.max_batch + 1):
            build = math.ceil(
                options.batch_build_factor * (batch - 1) * 1e6 / self.rates[model.name]
            )
            for stages in range(1, options.max_stages + 1):
                for cuts in itertools.combinations(range(1, blocks), stages - 1):
                    bounds = list(itertools.pairwise([0, *cuts, blocks]))
                    for chosen in itertools.product(choices, repeat=stages):
                        way = tuple(
                            (position, *bounds[position], *chosen[position], batch)
                            for position in range(stages)
                        )
                        latency = sum(self.latency(index, stage) for stage in way)
                        latency += batch * sum(
                            self.transfer(index, *pair) for pair in itertools.pairwise(way)
                        )
                        latency += options.hop_overhead_us * (stages + 1) + build
                        if latency + round(model.slo_us * options.slo_margin) <= model.slo_us:
                            yield way

    def latency(self, index: int, stage: Stage) -> int:
        _, first, end, c, m, batch = stage
        name = self.cluster.models[index].name
        return sum(
            row.latency_mean_us
            for row in self.profiles[name, self.cluster.gpu_classes[c].name].rows
            if first <= row.block < end and row.batch == batch and row.share == Fraction(1, m)
        )

    def transfer(self, index: int, left: Stage, right: Stage) -> int:
        name = self.cluster.models[index].name
        sender, receiver = (self.cluster.gpu_classes[stage[3]] for stage in (left, right))
        size = self.profiles[name, sender.name].cut_bytes[left[2] - 1]
        return math.ceil(size * 8 / (min(sender.network_gbps, receiver.network_gbps) * 1000))

    def allocations(self, stages: list[Stage]) -> Iterator[dict[Stage, int]]:
        """Yield every number of instances per stage that the fleet has room for."""

        def extend(number: int, chosen: dict[Stage, int]) -> Iterator[dict[Stage, int]]:
            if number == len(stages):
                if chosen:
                    yield chosen
                return
            yield from extend(number + 1, chosen)
            for count in itertools.count(1):
                more = {**chosen, stages[number]: count}
                if any(
                    used > each.count
                    for used, each in zip(self.gpus(more), self.cluster.gpu_classes, strict=True)
                ):
                    return
                yield from extend(number + 1, more)

        yield from extend(0, {})

    def gpus(self, instances: Mapping[Stage, int]) -> tuple[int, ...]:
        halves: defaultdict[tuple[int, int], int] = defaultdict(int)
        for (position, _, _, c, m, _), count in instances.items():
            halves[position, c] += count * (2 // m)  # shares are 1/1 or 1/2
        return tuple(
            sum(-(-held // 2) for (_, c), held in halves.items() if c == number)
            for number in range(len(self.cluster.gpu_classes))
        )

    def most_flow(
        self, ways: list[Way], instances: Mapping[Stage, int], known: float, index: int
    ) -> float:
        usable = [way for way in ways if all(stage in instances for stage in way)]
        if {stage for way in usable for stage in way} != set(instances):
            return 0.0  # an idle instance: another allocation does without it
        loads = {
            (way, position): self.loads(index, way, position)
            for way in usable
            for position in range(len(way))
        }
        alone = {
            way: min(instances[way[p]] / max(loads[way, p]) for p in range(len(way)))
            for way in usable
        }
        if sum(len(way) for way in usable) == len(instances):  # nothing is shared
            return sum(alone.values())
        if sum(alone.values()) <= known:
            return 0.0
        return self.linear_program(usable, instances, loads)

    def loads(self, index: int, way: Way, position: int) -> tuple[float, float, float]:
        _, _, _, c, m, batch = way[position]
        sharers = m * self.cluster.gpu_classes[c].gpus_per_server
        received = self.transfer(index, *way[position - 1 : position + 1]) if position else 0
        last = position == len(way) - 1
        sent = 0 if last else self.transfer(index, *way[position : position + 2])
        compute = self.latency(index, way[position]) / batch
        return compute / 1e6, received * sharers / 1e6, sent * sharers / 1e6

    @staticmethod
    def linear_program(
        ways: list[Way], instances: Mapping[Stage, int], loads: Mapping[Any, tuple[float, ...]]
    ) -> float:
        from scipy.optimize import linprog  # type: ignore[import-untyped]

        rows, rooms = [], []
        for stage, count in instances.items():
            for kind in range(3):
                rows.append(
                    [
                        loads[way, way.index(stage)][kind] * 1000 if stage in way else 0.0
                        for way in ways
                    ]
                )
                rooms.append(float(count))
        result = linprog([-1.0] * len(ways), A_ub=rows, b_ub=rooms)
        return -float(result.fun) * 1000


@pytest.mark.parametrize("solver", ["highs", "gscip"])
@settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(case=cases(), rate=st.sampled_from([200.0, 2000.0]))
def test_objective_equals_brute_force(
    solver: Literal["gscip", "highs"], case: Case, rate: float
) -> None:
    cluster, profiles = case
    rates = {model.name: rate for model in cluster.models}
    expected = BruteForce(cluster, profiles, rates).best()
    if expected == 0:
        with pytest.raises(Infeasible):
            best_solution(gather_inputs(cluster, profiles), rates, exactly(solver))
        return
    found = best_solution(gather_inputs(cluster, profiles), rates, exactly(solver))
    assert found.objective_rps == pytest.approx(expected, rel=1e-6)
    assert found.bound_rps >= expected * (1 - 1e-6)


def plan_or_none(cluster: Cluster, profiles: Profiles) -> float | None:
    try:
        plan = make_plan(cluster, profiles, solver="highs")
    except Infeasible:
        return None
    assert list(find_faults(plan, cluster, profiles)) == []
    return plan.solve.objective_rps


@settings(derandomize=True, max_examples=40, deadline=None)
@given(case=cases(most_gpus=4), grown=st.integers(0, 1))
def test_more_hardware_never_lowers_the_objective(case: Case, grown: int) -> None:
    cluster, profiles = case
    # With an allowance for gathering batches the rates assumed change with the fleet: left out.
    cluster = replace(cluster, options=replace(cluster.options, batch_build_factor=0.0))
    before = plan_or_none(cluster, profiles)
    assume(before is not None)
    classes = list(cluster.gpu_classes)
    number = grown % len(classes)
    classes[number] = replace(classes[number], count=classes[number].count + 1)
    after = plan_or_none(replace(cluster, gpu_classes=tuple(classes)), profiles)
    assert before is not None
    assert after is not None
    assert after >= before * (1 - 1e-6)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(case=cases(most_gpus=4))
def test_partitioning_never_loses_against_keeping_models_whole(case: Case) -> None:
    cluster, profiles = case
    cluster = replace(cluster, options=replace(cluster.options, batch_build_factor=0.0))
    try:
        whole = make_plan(cluster, profiles, partition=False, solver="highs")
    except Infeasible:
        return
    split = make_plan(cluster, profiles, solver="highs")
    assert split.solve.objective_rps >= whole.solve.objective_rps * (1 - 1e-6)

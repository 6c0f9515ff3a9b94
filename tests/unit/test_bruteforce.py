"""Brute force against cases worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from ortools.math_opt.python import mathopt

from penstock.domain.cluster import Cluster, GpuClass, PlannerOptions
from penstock.domain.ids import GpuClassName, ModelName
from penstock.domain.profiles import LatencyProfile
from tests.support.bruteforce import best_value, fewest_gpus
from tests.support.simplex import greatest_sum
from tests.support.tiny import FORMS, draw_case
from tests.unit.planner.fleets import gpu_class, profile, served

Latencies = dict[tuple[int, int], Sequence[int]]  # (m, batch) → µs of each block


class World:
    """A fleet being put together; `best` plans it."""

    def __init__(self, *classes: GpuClass, **options: Any) -> None:
        defaults: dict[str, Any] = {"slo_margin": 0.0, "batch_build_factor": 0.0, "max_stages": 3}
        self._classes = classes
        self._options = PlannerOptions(**{**defaults, **options})
        self._models: list[Any] = []
        self._profiles: dict[tuple[ModelName, GpuClassName], LatencyProfile] = {}

    def serving(
        self,
        name: str,
        *tables: Latencies,
        cuts: Sequence[int] = (),
        weights_mib: Sequence[int] = (),
        **fields: Any,
    ) -> World:
        """Add a model with a table of latencies for each class."""
        for each, table in zip(self._classes, tables, strict=True):
            shares = {(batch, Fraction(1, m)): us for (m, batch), us in table.items()}
            blocks = len(next(iter(table.values())))
            self._profiles[ModelName(name), each.name] = profile(
                name,
                each.name,
                shares,
                cuts or (0,) * (blocks - 1),
                weight_bytes=tuple(mib << 20 for mib in weights_mib or (1,) * blocks),
                activation_bytes=(0,) * blocks,
            )
        self._models.append(replace(served(name, slo_ms=1000), **fields))
        return self

    def best(self, rate: float = math.inf, **options: Any) -> float | None:
        cluster = Cluster(
            gpu_classes=self._classes,
            models=tuple(self._models),
            options=replace(self._options, **options),
        )
        rates = dict.fromkeys((each.name for each in self._models), rate)
        return best_value(cluster, self._profiles, rates)


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9)


# -------------------------------------------------------------------------------- one stage


def test_every_gpu_is_used() -> None:
    assert World(gpu_class("a", 3)).serving("x", {(1, 1): [1000]}).best() == near(3000)


def test_the_better_batch_is_taken_if_it_fills_in_time() -> None:
    world = World(gpu_class("a", 1), batch_build_factor=1.0)
    world.serving("x", {(1, 1): [1000], (1, 2): [1500]}, slo_us=6500)
    assert world.best() == near(2e6 / 1500)
    assert world.best(rate=200.0) == near(2e6 / 1500)  # 5 ms for the second sample, 1.5 to run
    assert world.best(rate=199.0) == near(1000)
    assert world.best(max_batch=1) == near(1000)


def test_the_margin_and_hops_are_kept() -> None:
    world = World(gpu_class("a", 1), hop_overhead_us=100).serving("x", {(1, 1): [1000]})
    tight = world.best(slo_margin=0.5)
    assert tight == near(1000)
    for slo_us, expected in ((1200, near(1000)), (1199, None)):
        only = World(gpu_class("a", 1), hop_overhead_us=100)
        assert only.serving("x", {(1, 1): [1000]}, slo_us=slo_us).best() == expected
        own = World(gpu_class("a", 1), hop_overhead_us=100, slo_margin=0.9)
        own.serving("x", {(1, 1): [1000]}, slo_us=slo_us + 7, margin_us=7)
        assert own.best() == expected
        most = World(gpu_class("a", 1), hop_overhead_us=100)
        assert most.serving("x", {(1, 1): [1000]}, max_latency_us=slo_us).best() == expected


def test_weights_divide_the_fleet() -> None:
    world = World(gpu_class("a", 3))
    world.serving("x", {(1, 1): [1000]}, weight=2.0).serving("y", {(1, 1): [1000]})
    assert world.best() == near(1000)  # two GPUs and one
    assert world.best(objective="goodput") == near(3000)


def test_a_model_that_does_not_fit_beside_another() -> None:
    world = World(gpu_class("a", 1))
    world.serving("x", {(1, 1): [1000]}).serving("y", {(1, 1): [500]})
    assert world.best() is None
    assert world.best(objective="goodput") == near(2000)


def test_nothing_at_all() -> None:
    world = World(gpu_class("a", 1)).serving("x", {(1, 1): [1000]}, slo_us=10)
    assert world.best() is None
    assert world.best(objective="goodput") == 0
    assert world.best(objective="fewest-gpus") == 0  # no rate was asked


def test_halves_of_one_gpu_for_two_models() -> None:
    world = World(gpu_class("a", 1, max_share_denominator=2))
    for name in ("x", "y"):
        world.serving(name, {(1, 1): [1000], (2, 1): [1250]})
    assert world.best() == near(800)
    assert world.best(packing="per-stage") is None
    assert world.best(mode="compat", packing="per-stage") is None


def test_thirds_beside_halves() -> None:
    world = World(gpu_class("a", 2, max_share_denominator=3))
    world.serving("x", {(1, 1): [1000], (2, 1): [1000]}, rate_rps=2900)
    world.serving("y", {(1, 1): [9000], (3, 1): [1000]}, rate_rps=1000)
    # three halves and a third are on two GPUs: one half is left beside the third
    assert world.best(objective="fewest-gpus") == 2
    assert world.best(objective="goodput") == near(3000 + 1000)
    assert world.best(objective="fewest-gpus", packing="per-stage") is None


# -------------------------------------------------------------------------------- several stages


def test_two_stages_where_each_runs_best() -> None:
    world = World(gpu_class("a", 1), gpu_class("b", 2))
    world.serving("x", {(1, 1): [1000, 9000]}, {(1, 1): [8000, 2000]})
    # a runs the first block, 1000 a second; two b the second, 500 a second each
    assert world.best() == near(1000)
    assert world.best(max_stages=1) == near(100 + 2 * 100)


def test_a_link_that_binds() -> None:
    for servers, expected in ((1, 500.0), (2, 250.0)):
        world = World(
            gpu_class("a", 1, network_gbps=1.0, gpus_per_server=servers), gpu_class("b", 1)
        )
        tables: list[Latencies] = [{(1, 1): [1000, 10**6]}, {(1, 1): [10**6, 1000]}]
        world.serving("x", *tables, cuts=[250_000], slo_us=5000)  # 2 ms a sample at 1 Gbit/s
        assert world.best() == near(expected)


def test_links_are_not_rounded_but_latency_is() -> None:
    tables: list[Latencies] = [{(1, 1): [1, 9000]}, {(1, 1): [9000, 1]}]
    for slo_us, expected in ((7, near(1e6 / 4.8)), (6, None)):
        world = World(gpu_class("a", 1), gpu_class("b", 1))
        world.serving("x", *tables, cuts=[6000], slo_us=slo_us)  # 4.8 µs: five, and two to run
        assert world.best() == expected


def test_a_stage_shared_by_two_ways() -> None:
    world = World(gpu_class("a", 1), gpu_class("b", 1), gpu_class("c", 1))
    never = 10**6
    world.serving(
        "x",
        {(1, 1): [1000, never]},
        {(1, 1): [never, 2500]},
        {(1, 1): [never, 4000]},
        slo_us=10_000,
    )
    assert world.best() == near(400 + 250)
    # in compat mode the one GPU of a is in one pool, and that in one pipeline
    assert world.best(mode="compat", packing="per-stage") == near(400)


def test_loads_of_ways_that_share_a_stage_add_up() -> None:
    never = 10**6
    world = World(gpu_class("a", 1), gpu_class("b", 1, network_gbps=1.0), gpu_class("c", 1))
    world.serving(
        "x",
        {(1, 1): [1000, never]},
        {(1, 1): [never, 1]},
        {(1, 1): [never, 4000]},
        cuts=[500_000],  # 4 ms to b, 0.4 ms to c
        slo_us=10_000,
    )
    # to c 250 a second keep a busy for 25 % of the time; the rest sends to b for 4 ms a sample
    assert world.best() == near(250 + 0.75 * 250)


def test_memory_forces_a_cut() -> None:
    world = World(gpu_class("a", 2, memory_bytes=3 << 20))
    world.serving("x", {(1, 1): [1000, 1000]}, weights_mib=(2, 2))
    assert world.best() == near(1000)
    assert world.best(workspace_bytes=1 << 20) == near(1000)
    assert world.best(workspace_bytes=(1 << 20) + 1) is None
    assert world.best(max_stages=1) is None


def test_memory_of_a_share() -> None:
    world = World(gpu_class("a", 1, memory_bytes=3 << 20, max_share_denominator=2))
    world.serving("x", {(1, 1): [1000], (2, 1): [1000]}, weights_mib=(2,))
    assert world.best() == near(1000)  # half of 3 MiB is too little


def test_batches_that_change_on_the_way() -> None:
    world = World(gpu_class("a", 1), gpu_class("b", 2))
    never = 10**6
    world.serving("x", {(1, 2): [1000, never]}, {(1, 1): [never, 1000]}, slo_us=3000)
    assert world.best() is None
    assert world.best(rebatch=True) == near(2000)  # 1 ms for two, then twice 1 ms
    tighter = World(gpu_class("a", 1), gpu_class("b", 2), rebatch=True)
    tighter.serving("x", {(1, 2): [1000, never]}, {(1, 1): [never, 1000]}, slo_us=2999)
    assert tighter.best() is None
    assert world.best(rebatch=True, mode="compat", packing="per-stage") is None


def test_batches_that_do_not_divide_each_other() -> None:
    never = 10**6
    for batch, expected in ((3, None), (4, near(2000)), (2, near(2000))):
        world = World(gpu_class("a", 1), gpu_class("b", 1), rebatch=True)
        tables: list[Latencies] = [
            {(1, 2): [1000, never]},
            {(1, batch): [never, 500 * batch]},
        ]
        assert world.serving("x", *tables, slo_us=9000).best() == expected


def test_gathered_batches_take_their_time() -> None:
    never = 10**6
    tables: list[Latencies] = [{(1, 1): [100, never]}, {(1, 4): [never, 1000]}]
    # 3 ms until four are there; 0.1 ms and a transfer for the last of them, 1 ms for all four
    for slo_us, expected in ((3000 + 100 + 1 + 1000, near(4000)), (4100, None)):
        world = World(gpu_class("a", 1), gpu_class("b", 1), rebatch=True, batch_build_factor=1.0)
        world.serving("x", *tables, cuts=[1250], slo_us=slo_us)
        assert world.best(rate=1000.0) == expected


def test_a_group_leaves_a_stage_as_large_as_it_came() -> None:
    never = 10**6
    tables: list[Latencies] = [
        {(1, 2): [1000, never, never]},
        {(1, 1): [never, 1000, never]},
        {(1, 1): [never, never, 1000]},
    ]
    # 1 ms for two, then twice 1 ms on b, and both wait for each other before c: twice 1 ms
    for slo_us, expected in ((5000, near(1000)), (4999, None)):
        world = World(*(gpu_class(name, 1) for name in "abc"), rebatch=True)
        assert world.serving("x", *tables, slo_us=slo_us).best() == expected


# ------------------------------------------------------------------------------ what is asked for


def two_classes(**fields: Any) -> World:
    """A fast, dear class and a slow, cheap one."""
    world = World(
        gpu_class("fast", 2, price_per_hour=3.0), gpu_class("slow", 3, price_per_hour=1.0)
    )
    return world.serving("x", {(1, 1): [1000]}, {(1, 1): [2500]}, **fields)


def test_the_cheapest_and_the_fewest() -> None:
    for rate, cost, gpus in ((400, 1, 1), (401, 2, 1), (1000, 3, 1), (1300, 4, 2), (1401, 5, 2)):
        assert two_classes(rate_rps=rate).best(objective="least-cost") == cost
        assert two_classes(rate_rps=rate).best(objective="fewest-gpus") == gpus
    assert two_classes(rate_rps=3201).best(objective="least-cost") is None
    assert two_classes(rate_rps=3200).best(objective="least-cost") == 9


def test_a_price_is_a_bound_like_others() -> None:
    for price, expected in ((9.0, 3200), (8.9, 2800), (3.0, 1200), (1.5, 400), (0.5, None)):
        value = two_classes().best(max_price_per_hour=price)
        assert value == (None if expected is None else near(expected))


def test_a_rate_is_kept_whatever_is_sought() -> None:
    def both(rate: float) -> World:
        world = World(gpu_class("a", 3)).serving("x", {(1, 1): [1000]}, rate_rps=rate)
        return world.serving("y", {(1, 1): [500]})

    assert both(500).best(objective="goodput") == near(5000)
    assert both(1001).best(objective="goodput") == near(4000)
    assert both(1001).best() == near(2000)
    assert both(3001).best(objective="goodput") is None


def test_pins_and_bans_and_spare_gpus() -> None:
    assert two_classes().best() == near(3200)
    assert two_classes(gpu_classes=("fast",)).best() == near(2000)
    assert two_classes(forbidden_gpu_classes=("fast",)).best() == near(1200)
    assert two_classes(gpu_classes=("fast",), forbidden_gpu_classes=("fast",)).best() is None
    assert two_classes().best(spare_gpus=1) == near(1000 + 800)
    assert two_classes().best(spare_gpus=2) == near(400)
    assert two_classes().best(spare_gpus=5) is None


def test_a_model_may_have_fewer_stages() -> None:
    for stages, expected in ((None, 1000), (2, 1000), (1, 300)):
        world = World(gpu_class("a", 1), gpu_class("b", 2))
        tables: list[Latencies] = [{(1, 1): [1000, 9000]}, {(1, 1): [8000, 2000]}]
        assert world.serving("x", *tables, max_stages=stages).best() == near(expected)


def test_compat_has_one_pipeline_for_each_tuple_of_classes() -> None:
    world = World(gpu_class("a", 2, max_share_denominator=2), packing="per-stage")
    world.serving("x", {(1, 1): [1000], (2, 1): [1900], (2, 2): [3600]}, rate_rps=2050)
    # two wholes are not enough, four halves of batch 2 are: one pipeline
    assert world.best(mode="compat") == near(4 * 2e6 / 3600)
    only = World(gpu_class("a", 1), gpu_class("b", 1), packing="per-stage")
    tables: list[Latencies] = [{(1, 1): [1000, 1000]}, {(1, 1): [1000, 1000]}]
    only.serving("x", *tables)
    assert only.best(mode="compat") == near(1000)  # (a) and (b), or (a, b)


# -------------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (((2, 2), (3, 3)), 2),
        (((2, 1), (3, 2), (4, 3)), 2),
        (((2, 1), (3, 2), (5, 4)), 3),  # sums to 1.97
        (((2, 3), (3, 1)), 2),
        (((3, 4),), 2),
    ],
)
def test_shares_are_laid_out_on_the_fewest_gpus(
    counts: tuple[tuple[int, int], ...], expected: int
) -> None:
    for order in itertools.permutations(counts):
        assert fewest_gpus(tuple(order)) == expected


def test_the_simplex_by_hand() -> None:
    assert greatest_sum([[2.0]], [3.0]) == near(1.5)
    assert greatest_sum([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [2.0, 2.0, 3.0]) == near(3)
    assert greatest_sum([[1.0, 3.0], [3.0, 1.0]], [4.0, 4.0]) == near(2)


def test_the_simplex_agrees_with_a_solver() -> None:
    rng = Random(0)
    for _ in range(50):
        height, width = rng.randint(1, 5), rng.randint(1, 7)
        rows = [
            [rng.choice((0.0, 0.001)) * rng.uniform(0.5, 2) for _ in range(width)]
            for _ in range(height - 1)
        ]
        rows.append([rng.uniform(0.0005, 0.004) for _ in range(width)])
        rooms = [float(rng.randint(1, 3)) for _ in range(height)]
        program = mathopt.Model()
        x = [program.add_variable(lb=0.0) for _ in range(width)]
        for row, room in zip(rows, rooms, strict=True):
            used = sum(c * each for c, each in zip(row, x, strict=True))
            program.add_linear_constraint(used <= room)
        program.maximize(sum(x))
        expected = mathopt.solve(program, mathopt.SolverType.GLOP).objective_value()
        assert greatest_sum(rows, rooms) == pytest.approx(expected, rel=1e-6)


def test_cases_drawn_are_worth_planning() -> None:
    """Most have a plan, and for many a cut, a share or a batch makes it better."""
    told: dict[str, int] = dict.fromkeys(("planned", "cut", "shared", "gathered", "two"), 0)
    count = 100
    for seed in range(count):
        rng = Random(seed)
        case = draw_case(rng, "goodput", rng.choice(FORMS))
        value = best_value(case.cluster, case.profiles, case.rates)
        if not value:
            continue
        told["planned"] += 1
        told["two"] += len(case.cluster.models) == 2
        whole = tuple(replace(each, max_share_denominator=1) for each in case.cluster.gpu_classes)
        for name, other in (
            ("cut", case.changed(max_stages=1)),
            ("gathered", case.changed(max_batch=1)),
            ("shared", replace(case, cluster=replace(case.cluster, gpu_classes=whole))),
        ):
            less = best_value(other.cluster, other.profiles, other.rates) or 0.0
            told[name] += less < value * (1 - 1e-6)
    assert told["planned"] > 0.7 * count, told
    assert min(told["two"], told["shared"], told["gathered"]) > 0.2 * count, told
    assert told["cut"] > 0.15 * count, told

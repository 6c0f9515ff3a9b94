"""The verifier must notice every way a plan can lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.cluster import Cluster
from penstock.domain.ids import GpuClassName, InstanceId, ModelName, PipelineId, PoolId
from penstock.domain.placement import GpuSlot, gpu_slots
from penstock.domain.plan import Digest, ModelPlan, Pipeline, Plan, Pool
from planner.inputs import Profiles
from planner.verify import find_faults, gpus, told
from tests.unit.planner.fleets import DIGITS, SLOW, gpu_class, mixed_fleet, profile, served
from tests.unit.planner.handmade import Stage, plan_by_hand

Change: TypeAlias = Callable[[Plan], Plan]


@dataclass(frozen=True)
class Scene:
    """A plan without a fault, and what it is for."""

    plan: Plan
    cluster: Cluster
    profiles: Profiles

    def faults(self) -> list[str]:
        return list(find_faults(self.plan, self.cluster, self.profiles))

    def with_plan(self, change: Change) -> Scene:
        return replace(self, plan=change(self.plan))

    def with_cluster(self, change: Callable[[Cluster], Cluster]) -> Scene:
        return replace(self, cluster=change(self.cluster))


# ------------------------------------------------------------------------------------ changes


def in_model(change: Callable[[ModelPlan], ModelPlan], place: int = 0) -> Change:
    def changed(plan: Plan) -> Plan:
        models = list(plan.models)
        models[place] = change(models[place])
        return replace(plan, models=tuple(models))

    return changed


def model(**fields: Any) -> Change:
    return in_model(lambda each: replace(each, **fields))


def pool(place: int, **fields: Any) -> Change:
    def change(each: ModelPlan) -> ModelPlan:
        pools: list[Pool] = list(each.pools)
        pools[place] = replace(pools[place], **fields)
        return replace(each, pools=tuple(pools))

    return in_model(change)


def pipeline(place: int = 0, **fields: Any) -> Change:
    def change(each: ModelPlan) -> ModelPlan:
        pipelines: list[Pipeline] = list(each.pipelines)
        pipelines[place] = replace(pipelines[place], **fields)
        return replace(each, pipelines=tuple(pipelines))

    return in_model(change)


def solve(**fields: Any) -> Change:
    return lambda plan: replace(plan, solve=replace(plan.solve, **fields))


def planned_class(**fields: Any) -> Change:
    return lambda plan: replace(
        plan, gpu_classes=(replace(plan.gpu_classes[0], **fields), *plan.gpu_classes[1:])
    )


def transfer(**fields: Any) -> Change:
    def change(plan: Plan) -> Plan:
        (old,) = plan.models[0].pipelines[0].transfers
        return pipeline(transfers=(replace(old, **fields),))(plan)

    return change


def both(*changes: Change) -> Change:
    def change(plan: Plan) -> Plan:
        for each in changes:
            plan = each(plan)
        return plan

    return change


def second_copy(plan: Plan) -> Plan:
    (old,) = plan.models[0].pipelines
    return model(pipelines=(old, replace(old, id=PipelineId("digits.p1"))))(plan)


def second_pool(plan: Plan) -> Plan:
    first = plan.models[0].pools[0]
    return model(pools=(first, *plan.models[0].pools))(plan)


def twin_pipeline(plan: Plan) -> Plan:
    (old,) = plan.models[0].pipelines
    return model(pipelines=(old, old))(plan)


def options(**fields: Any) -> Callable[[Cluster], Cluster]:
    return lambda cluster: replace(cluster, options=replace(cluster.options, **fields))


def asked(**fields: Any) -> Callable[[Cluster], Cluster]:
    return lambda cluster: replace(
        cluster, models=(replace(cluster.models[0], **fields), *cluster.models[1:])
    )


def classes(**fields: Any) -> Callable[[Cluster], Cluster]:
    return lambda cluster: replace(
        cluster, gpu_classes=tuple(replace(each, **fields) for each in cluster.gpu_classes)
    )


# ------------------------------------------------------------------------------------- scenes


PLAIN = (
    Stage(blocks=(0, 2), gpu_class="fast", batch=2),
    Stage(blocks=(2, 4), gpu_class="slow", batch=2, instances=2),
)


def _fleet(slow: int, slo_ms: float, **fields: Any) -> tuple[Cluster, Profiles]:
    """One fast GPU, divisible in two, and some slow ones; see `mixed_fleet` for latencies."""
    cluster, profiles = mixed_fleet(slo_ms=slo_ms, **fields)
    fast, slow_class = cluster.gpu_classes
    return replace(cluster, gpu_classes=(fast, replace(slow_class, count=slow))), profiles


@cache
def plain(**fields: Any) -> Scene:
    """Two stages of batch 2, every GPU in use; the first is busy all the time."""
    cluster, profiles = _fleet(2, 80, **fields)
    plan = plan_by_hand(cluster, profiles, {"digits": [(500 / 3, PLAIN)]})
    return Scene(plan, cluster, profiles)


@cache
def sought(objective: str, *, priced: bool = True, rated: bool = True) -> Scene:
    """The plain plan, made for another objective."""
    scene = plain(objective=objective)
    fast, slow = scene.cluster.gpu_classes
    cluster = scene.cluster
    if priced:
        prices = (replace(fast, price_per_hour=3.0), replace(slow, price_per_hour=1.0))
        cluster = replace(cluster, gpu_classes=prices)
    if rated:
        cluster = asked(rate_rps=150.0)(cluster)
    ways = {"digits": [(500 / 3, PLAIN)]}
    plan = plan_by_hand(cluster, scene.profiles, ways, gpus=3, price=5.0)
    return Scene(plan, cluster, scene.profiles)


HEAD = Stage(blocks=(0, 2), gpu_class="fast", m=2)
TAIL_ON_SLOW = Stage(blocks=(2, 4), gpu_class="slow")
TAIL_ON_FAST = Stage(blocks=(2, 4), gpu_class="fast", m=2)


@cache
def shared(slow_gbps: float = 10.0, to_fast_rps: float = 20.0, packing: str = "whole-gpu") -> Scene:
    """One pool of half a fast GPU feeds a slow GPU and the other half."""
    cluster, profiles = _fleet(1, 100, packing=packing)
    fast, slow = cluster.gpu_classes
    cluster = replace(cluster, gpu_classes=(fast, replace(slow, network_gbps=slow_gbps)))
    ways = [(50.0, (HEAD, TAIL_ON_SLOW)), (to_fast_rps, (HEAD, TAIL_ON_FAST))]
    return Scene(plan_by_hand(cluster, profiles, {"digits": ways}), cluster, profiles)


@cache
def rebatched() -> Scene:
    """Two samples together on fast, then one after the other on slow."""
    cluster, profiles = _fleet(2, 100, rebatch=True)
    stages = (
        Stage(blocks=(0, 2), gpu_class="fast", batch=2),
        Stage(blocks=(2, 4), gpu_class="slow", batch=1, instances=2),
    )
    plan = plan_by_hand(cluster, profiles, {"digits": [(500 / 3, stages)]})
    return Scene(plan, cluster, profiles)


@cache
def crowd(count: int, mode: str = "general", packing: str = "per-stage") -> Scene:
    """Shares 1/2, 1/3, 1/3 and four times 1/5 at one position: 1.97 GPUs that take three."""
    cluster, _ = mixed_fleet(mode=mode, packing=packing, slo_margin=0.0)
    cluster = replace(
        cluster,
        gpu_classes=(gpu_class("a", count, max_share_denominator=5), gpu_class("b", 1)),
        models=(served("x", slo_ms=100),),
    )
    table = {(1, Fraction(1, m)): [1000, 1000] for m in (1, 2, 3, 5)}
    profiles = {
        (ModelName("x"), GpuClassName(name)): profile("x", name, table, (1000,)) for name in "ab"
    }
    ways = [
        (100.0, [Stage(blocks=(0, 2), gpu_class="a", m=2)]),
        (100.0, [Stage(blocks=(0, 1), gpu_class="a", m=3, instances=2), _last("b")]),
        (100.0, [Stage(blocks=(0, 1), gpu_class="a", m=5, instances=4), _last("a")]),
    ]
    return Scene(plan_by_hand(cluster, profiles, {"x": ways}), cluster, profiles)


def _last(name: str) -> Stage:
    return Stage(blocks=(1, 2), gpu_class=name)


@cache
def two_models(packing: str = "whole-gpu", count: int = 1) -> Scene:
    """Half a GPU for each of two models."""
    cluster, _ = mixed_fleet(packing=packing, slo_margin=0.0, objective="goodput")
    cluster = replace(
        cluster,
        gpu_classes=(gpu_class("a", count, max_share_denominator=2),),
        models=(served("x", weight=2.0, rate_rps=90.0), served("y", rate_rps=90.0)),
    )
    table = {(1, Fraction(1, m)): [1000] for m in (1, 2)}
    profiles = {
        (ModelName(name), GpuClassName("a")): profile(name, "a", table, ()) for name in "xy"
    }
    ways = {name: [(100.0, [Stage(blocks=(0, 1), gpu_class="a", m=2)])] for name in "xy"}
    return Scene(plan_by_hand(cluster, profiles, ways), cluster, profiles)


@cache
def unpartitioned() -> Scene:
    """One model, whole, on whole GPUs."""
    cluster, profiles = _fleet(1, 200)
    ways = [
        (60.0, [Stage(blocks=(0, 4), gpu_class="fast")]),
        (15.0, [Stage(blocks=(0, 4), gpu_class="slow")]),
    ]
    scene = Scene(plan_by_hand(cluster, profiles, {"digits": ways}), cluster, profiles)
    return scene.with_plan(solve(formulation="no-partition"))


SCENES: Mapping[str, Callable[[], Scene]] = {
    "plain": plain,
    "compat": lambda: plain(mode="compat"),
    "goodput": lambda: sought("goodput"),
    "least-cost": lambda: sought("least-cost"),
    "fewest-gpus": lambda: sought("fewest-gpus"),
    "shared pool": shared,
    "shared pool, one link slow": lambda: shared(slow_gbps=0.1, to_fast_rps=14.0),
    "re-batched": rebatched,
    "shares that need a third GPU": lambda: crowd(count=4),
    "shares rounded as published": lambda: crowd(count=3, mode="compat"),
    "two models on one GPU": two_models,
    "no partition": unpartitioned,
}


@pytest.mark.parametrize("name", SCENES)
def test_good_plans_have_no_faults(name: str) -> None:
    assert SCENES[name]().faults() == []


# ------------------------------------------------------------------------- a plan that was bent

CORRUPTED: dict[str, tuple[Change, str]] = {
    # coverage
    "a gap between stages": (pool(0, end_block=1), "does not cover"),
    "an overlap of stages": (pool(1, first_block=1), "does not cover"),
    "blocks missing at the end": (pool(1, end_block=3), "does not cover"),
    "blocks missing at the start": (pool(0, first_block=1), "does not cover"),
    "an empty stage": (
        both(pool(0, end_block=0), pool(1, first_block=0)),
        "blocks 0--1 are not the model's",
    ),
    "a stage beyond the end": (pool(1, end_block=5), "blocks 2-4 are not the model's"),
    "a stage before the start": (pool(0, first_block=-1), "blocks -1-1 are not the model's"),
    "stages in the wrong order": (pool(0, position=1), "positions"),
    "another number of blocks": (model(blocks=5), "profiled with other blocks"),
    "an unknown pool": (pipeline(pools=("nowhere",), transfers=()), "not in the plan"),
    "a pipeline without pools": (pipeline(pools=(), transfers=()), "not in the plan"),
    "a transfer too few": (pipeline(transfers=()), "a transfer for each cut"),
    "stages of different batch": (
        pool(0, batch=1, latency_us_by_batch=(8_000,)),
        "differ in batch",
    ),
    "two pools of one id": (second_pool, "two pools have the same id"),
    "two pipelines of one id": (twin_pipeline, "two pipelines have the same id"),
    "a pool without a pipeline": (model(pipelines=()), "no pipeline leads"),
    # inventory
    "more GPUs than there are": (pool(1, instances=3), "3 GPUs used of 2"),
    "instances without end": (pool(1, instances=10**15), f"{10**15} GPUs used of 2"),
    "no instances": (pool(0, instances=0), "needs an instance"),
    "an unknown GPU class": (pool(0, gpu_class="H100"), "not in the cluster"),
    "another count": (planned_class(count=2), "planned as"),
    "another network": (planned_class(network_gbps=40.0), "planned as"),
    "another price": (planned_class(price_per_hour=2.5), "planned as"),
    "a class too few": (lambda plan: replace(plan, gpu_classes=plan.gpu_classes[:1]), "planned as"),
    "a class twice": (
        lambda plan: replace(plan, gpu_classes=(*plan.gpu_classes, plan.gpu_classes[0])),
        "two have the same name",
    ),
    "a share the class does not allow": (pool(1, share=Fraction(1, 2)), "smaller than the class"),
    "a share that was not profiled": (pool(1, share=Fraction(1, 2)), "was not profiled"),
    "a share that is no unit fraction": (pool(0, share=Fraction(2, 3)), "one over"),
    # memory
    "less memory than needed": (pool(0, memory_bytes=1), "memory_bytes is 1"),
    # latency
    "a wrong latency": (pool(0, latency_us_by_batch=(8_000, 11_999)), "profiled"),
    "a latency too few": (pool(0, latency_us_by_batch=(8_000,)), "latency for each batch"),
    "a wrong sum": (pipeline(latency_us=1), "sums to"),
    "a smaller margin": (model(margin_us=0), "margin is 0"),
    "another SLO": (model(slo_us=1_000_000), "SLO or weight"),
    "another weight": (model(weight=2.0), "SLO or weight"),
    "no time to gather a batch": (pipeline(batch_build_us=0, latency_us=31_660), "to gather"),
    "a missed SLO": (pipeline(batch_build_us=99_000, latency_us=130_660), "misses the SLO by"),
    "an SLO missed by a hair": (
        pipeline(batch_build_us=16_341, latency_us=48_001),
        "misses the SLO by 1 µs",
    ),
    "another hop overhead": (lambda plan: replace(plan, hop_overhead_us=0), "hop_overhead_us"),
    "a smaller cut": (transfer(bytes_per_sample=1), "cut is 100000"),
    "a faster link": (transfer(us_per_sample=79), "transfer of 79 µs, is 80"),
    "a slower link": (transfer(us_per_sample=81), "transfer of 81 µs, is 80"),
    # capacity and objective
    "too much flow": (
        both(pipeline(throughput_rps=200.0), model(throughput_rps=200.0)),
        "would be busy 120.0% of the time",
    ),
    "endless flow": (
        both(pipeline(throughput_rps=float("inf")), model(throughput_rps=float("inf"))),
        "would be busy inf% of the time",
    ),
    "too few instances": (pool(1, instances=1), "would be busy 150.0%"),
    "flow used twice": (second_copy, "would be busy 200.0%"),
    "a pipeline without flow": (pipeline(throughput_rps=0.0), "has no throughput"),
    "a model without flow": (model(throughput_rps=0.0), "model digits: has no throughput"),
    "a model without pipelines": (
        model(throughput_rps=0.0, pools=(), pipelines=()),
        "model digits: has no throughput",
    ),
    "flow that is not a number": (pipeline(throughput_rps=float("nan")), "has no throughput"),
    "a sum that is not one": (model(throughput_rps=100.0), "not the sum"),
    "a higher objective": (solve(objective_rps=1e6), "objective_rps"),
    "a higher value": (solve(value=200.0), "value: is 200"),
    "a value in another unit": (solve(unit="gpus"), "unit: is gpus, max-min is in rps"),
    "a bound below the value": (solve(bound=100.0), "bound: 100 is below the value"),
    "a bound that is not a number": (solve(bound=float("nan")), "bound"),
    "a bound without end": (solve(bound=float("inf")), "gap"),
    "a wrong gap": (solve(gap=0.5), "gap: is 0.5"),
    "optimal with a gap": (solve(bound=1000 / 3, gap=0.5), "is optimal with a gap of 0.5"),
    "an unknown status": (solve(status="best"), "status: is best"),
    "another objective": (solve(objective="goodput"), "objective: planned with goodput"),
    "another packing": (lambda plan: replace(plan, packing="per-stage"), "packing: planned with"),
    "another formulation": (solve(formulation="compat"), "the mode is general"),
    "a partition where there is none": (solve(formulation="no-partition"), "without partition one"),
    # identity
    "a model nobody asked for": (model(model="other"), "models: planned"),
    "a model too few": (lambda plan: replace(plan, models=()), "models: planned"),
}


@pytest.mark.parametrize("name", CORRUPTED)
def test_every_corruption_is_noticed(name: str) -> None:
    change, expected = CORRUPTED[name]
    found = plain().with_plan(change).faults()
    assert any(expected in fault for fault in found), found
    assert not any("\n" in fault for fault in found)


def test_other_inputs_are_noticed() -> None:
    scene = plain()
    plan = replace(scene.plan, inputs=(Digest(name="cluster", sha256="1"),))
    same = Digest(name="cluster", sha256="1")
    for digest, expected in (
        (same, []),
        (replace(same, sha256="2"), ["input cluster: has changed since the plan was made"]),
        (replace(same, name="other"), ["input other: has changed since the plan was made"]),
    ):
        found = list(find_faults(plan, scene.cluster, scene.profiles, [digest]))
        assert found == expected


# ---------------------------------------------------------------- a good plan, but more was asked

ASKED: dict[str, tuple[Callable[[], Scene], Callable[[Cluster], Cluster], str]] = {
    "fewer stages": (plain, options(max_stages=1), "more than max_stages"),
    "fewer stages of one model": (plain, asked(max_stages=1), "more than max_stages"),
    "smaller batches": (plain, options(max_batch=1), "larger than max_batch"),
    "less latency": (plain, asked(max_latency_us=39_459), "takes 39460 µs, max_latency is 39459"),
    "more margin": (plain, options(slo_margin=0.5), "margin is 32000 µs, asked 40000 µs"),
    "a margin of its own": (plain, asked(margin_us=40_541), "margin is 32000 µs, asked 40541 µs"),
    "a margin that leaves too little": (plain, asked(margin_us=40_541), "misses the SLO by 1 µs"),
    "another class": (plain, asked(gpu_classes=("fast",)), "digits must not run on slow"),
    "not this class": (plain, asked(forbidden_gpu_classes=("fast",)), "must not run on fast"),
    "a rate": (plain, asked(rate_rps=1000.0), "sustains 166.667 rps of the 1000 asked"),
    "more time to gather": (plain, options(batch_build_factor=3.0), "needs 18000 µs"),
    "workspace": (plain, options(workspace_bytes=1), "memory_bytes is 2228224, needs 2228225"),
    "workspace that does not fit": (plain, options(workspace_bytes=1 << 34), "does not fit"),
    "same batch everywhere": (rebatched, options(rebatch=False), "differ in batch ([2, 1])"),
    "GPUs kept free": (plain, options(spare_gpus=1), "GPU class slow: 2 GPUs used of 2, 1 to stay"),
    "a lower price": (
        lambda: sought("goodput"),
        options(max_price_per_hour=4.99),
        "the GPUs in use cost 5, at most 4.99 asked",
    ),
    "a price where none is known": (
        lambda: sought("goodput", priced=False),
        options(max_price_per_hour=100.0),
        "max_price_per_hour: not every GPU class has a price",
    ),
    "least cost without prices": (
        lambda: sought("least-cost", priced=False),
        lambda cluster: cluster,
        "least-cost: not every GPU class has a price",
    ),
    "least cost without rates": (
        lambda: sought("least-cost", rated=False),
        lambda cluster: cluster,
        "model digits: least-cost needs its rate_rps",
    ),
    "goodput without rates": (
        lambda: sought("goodput", rated=False),
        lambda cluster: cluster,
        "model digits: goodput needs its rate_rps",
    ),
    "fewest GPUs without rates": (
        lambda: sought("fewest-gpus", rated=False),
        lambda cluster: cluster,
        "model digits: fewest-gpus needs its rate_rps",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_everything_that_is_asked_is_checked(name: str) -> None:
    make, change, expected = ASKED[name]
    found = make().with_cluster(change).faults()
    assert any(expected in fault for fault in found), found


def test_just_what_was_asked_is_enough() -> None:
    scene = plain().with_cluster(asked(max_latency_us=39_460, max_stages=2, rate_rps=166.6))
    scene = scene.with_cluster(asked(gpu_classes=("slow", "fast")))
    assert scene.faults() == []
    own = scene.with_cluster(asked(margin_us=40_540)).with_plan(model(margin_us=40_540))
    assert own.faults() == []
    assert sought("goodput").with_cluster(options(max_price_per_hour=5.0)).faults() == []


def test_memory_of_the_share_is_checked() -> None:
    scene = shared()
    needed = scene.plan.models[0].pools[0].memory_bytes

    def with_memory(size: int) -> list[str]:
        tight = scene.with_cluster(classes(memory_bytes=size))
        planned = tuple(replace(each, memory_bytes=size) for each in scene.plan.gpu_classes)
        return replace(tight, plan=replace(scene.plan, gpu_classes=planned)).faults()

    assert with_memory(2 * needed) == []
    assert [fault for fault in with_memory(2 * needed - 1) if "does not fit" not in fault] == []
    assert len(with_memory(2 * needed - 1)) == 2  # both halves of fast; slow is whole


def test_other_blocks_are_noticed() -> None:
    scene = plain()
    other = {**scene.profiles}
    other[DIGITS, SLOW] = replace(other[DIGITS, SLOW], blocks_digest="new")
    assert any("other blocks" in fault for fault in replace(scene, profiles=other).faults())


def test_whole_gpus_without_partition() -> None:
    scene = two_models().with_plan(solve(formulation="no-partition"))
    assert any("without partition GPUs stay whole" in fault for fault in scene.faults())


# --------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("batches", "gathered_evenly"),
    [((1, 2), True), ((2, 1), True), ((4, 1, 2), True), ((2, 3), False), ((2, 1, 3), False)],
)
def test_batches_are_gathered_or_split_evenly(
    batches: tuple[int, ...], gathered_evenly: bool
) -> None:
    cluster, _ = mixed_fleet(slo_ms=200, rebatch=True, max_stages=3, max_batch=4)
    table = {(batch, Fraction(1)): [1000] * len(batches) for batch in (1, 2, 3, 4)}
    name = (DIGITS, GpuClassName("fast"))
    profiles = {name: profile("digits", "fast", table)}
    cluster = replace(cluster, gpu_classes=(gpu_class("fast", len(batches)),))
    stages = [
        Stage(blocks=(place, place + 1), gpu_class="fast", batch=batch)
        for place, batch in enumerate(batches)
    ]
    plan = plan_by_hand(cluster, profiles, {"digits": [(100.0, stages)]})
    found = Scene(plan, cluster, profiles).faults()
    assert (found == []) == gathered_evenly
    assert all("is no whole part or multiple of the" in fault for fault in found)


def test_split_batches_run_one_after_another() -> None:
    (way,) = rebatched().plan.models[0].pipelines
    # 12 ms for two on fast, twice 12 ms for one on slow, two transfers, three hops, gathering
    assert way.latency_us == 12_000 + 2 * 12_000 + 2 * 80 + 3 * 500 + 7_800
    once = rebatched().with_plan(pipeline(latency_us=way.latency_us - 12_000))
    assert any(f"sums to {way.latency_us}" in fault for fault in once.faults())


# ----------------------------------------------------------------------------------------- links


def test_transfer_times_are_not_rounded() -> None:
    cluster, profiles = _fleet(2, 80)
    tiny = {key: replace(each, cut_bytes=(1, 1, 1)) for key, each in profiles.items()}
    crowded = classes(gpus_per_server=100_000)(cluster)  # behind one network card
    plan = plan_by_hand(crowded, tiny, {"digits": [(500 / 3, PLAIN)]})
    assert Scene(plan, crowded, tiny).faults() == []  # 0.8 ns each; rounded up it would be 1 µs
    worse = classes(gpus_per_server=100_000 * 100)(cluster)
    plan = plan_by_hand(worse, tiny, {"digits": [(500 / 3, PLAIN)]})
    found = Scene(plan, worse, tiny).faults()
    assert len(found) == 1
    assert "fast.1of1.0-1.b2: would be busy 133.3%" in found[0]  # two slow GPUs receive: 66.7 %


def test_loads_on_a_shared_pool_add_up() -> None:
    # To slow the pool sends for 16 ms a sample, to fast it computes for 14 ms: neither computing
    # (91 %) nor sending (80 %) would be too much, but an instance does one batch after the other.
    found = shared(slow_gbps=0.1, to_fast_rps=15.0).faults()
    assert len(found) == 1
    assert "digits.0.fast.1of2.0-1.b1: would be busy 101.0% of the time" in found[0]


# -------------------------------------------------------------------------------------- packing


def test_stages_share_gpus_only_if_they_may() -> None:
    assert shared(packing="per-stage").faults() == ["GPU class fast: 2 GPUs used of 1"]
    assert two_models(packing="per-stage").faults() == ["GPU class a: 2 GPUs used of 1"]
    assert two_models(packing="per-stage", count=2).faults() == []


@pytest.mark.parametrize("packing", ["whole-gpu", "per-stage"])
def test_shares_that_cannot_be_laid_out_are_noticed(packing: str) -> None:
    found = crowd(count=3, packing=packing).faults()
    assert found == ["GPU class a: 4 GPUs used of 3"]


def test_published_rounding_has_its_limit_too() -> None:
    assert crowd(count=2, mode="compat").faults() == ["GPU class a: 3 GPUs used of 2"]


def bad_layout(change: Callable[[tuple[GpuSlot, ...]], tuple[GpuSlot, ...]]) -> Any:
    return lambda plan: change(gpu_slots(plan))


def moved(slots: tuple[GpuSlot, ...]) -> tuple[GpuSlot, ...]:
    """Put everything onto the first GPU."""
    everything = tuple(each for slot in slots for each in slot.instances)
    return (replace(slots[0], instances=everything),)


def renamed(slots: tuple[GpuSlot, ...]) -> tuple[GpuSlot, ...]:
    """Give every instance the same id."""
    same = InstanceId("same")
    return tuple(
        replace(slot, instances=tuple(replace(each, id=same) for each in slot.instances))
        for slot in slots
    )


def shrunk(slots: tuple[GpuSlot, ...]) -> tuple[GpuSlot, ...]:
    return tuple(
        replace(
            slot, instances=tuple(replace(each, share=Fraction(1, 9)) for each in slot.instances)
        )
        for slot in slots
    )


def foreign(slots: tuple[GpuSlot, ...]) -> tuple[GpuSlot, ...]:
    first = slots[0]
    (stranger, *_) = first.instances
    odd = replace(first, instances=(replace(stranger, pool=PoolId("other"), id=InstanceId("o/0")),))
    return (*slots, odd)


LAYOUTS: dict[str, tuple[Callable[[tuple[GpuSlot, ...]], tuple[GpuSlot, ...]], str]] = {
    "an instance left out": (lambda slots: slots[1:], "has 0 instances on GPUs, planned"),
    "a GPU listed twice": (lambda slots: (*slots, slots[0]), "instances on GPUs, planned"),
    "an instance twice": (renamed, "has an instance that is laid out twice"),
    "an instance of nothing": (foreign, "pool other has 1 instances on GPUs, planned 0"),
    "too much on a GPU": (moved, "of itself"),
    "stages mixed": (moved, "holds different stages"),
    "other shares": (shrunk, "holds other shares than planned"),
    "another class": (
        lambda slots: tuple(replace(slot, gpu_class=GpuClassName("b")) for slot in slots),
        "a GPU of class b holds another's",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_is_not_trusted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, expected = LAYOUTS[name]
    scene = crowd(count=8)
    monkeypatch.setattr(gpus, "gpu_slots", bad_layout(change))
    found = scene.faults()
    assert any(expected in fault for fault in found), found


# --------------------------------------------------------------------------------- compat's rules


def private_pools(mode: str, second: str = "slow") -> Scene:
    """Two pipelines that share nothing."""
    cluster, profiles = _fleet(2, 100, mode=mode, packing="per-stage")
    other: tuple[Stage, ...] = (Stage(blocks=(0, 4), gpu_class="fast", m=2),)
    if second == "slow":
        other = (replace(HEAD, private="+"), replace(TAIL_ON_SLOW, private="+"))
    ways = [(50.0, (HEAD, TAIL_ON_SLOW)), (20.0, other)]
    return Scene(plan_by_hand(cluster, profiles, {"digits": ways}), cluster, profiles)


def test_compat_has_one_pipeline_for_each_tuple_of_classes() -> None:
    assert private_pools("compat", second="fast").faults() == []
    assert private_pools("general").faults() == []
    (fault,) = private_pools("compat").faults()
    assert fault == "model digits: two pipelines over fast → slow, in compat mode one may"


def test_compat_has_private_pools() -> None:
    scene = shared(packing="per-stage")
    scene = scene.with_cluster(options(mode="compat")).with_plan(solve(formulation="compat"))
    (fault,) = scene.faults()
    assert "digits.0.fast.1of2.0-1.b1: 2 pipelines lead through it" in fault


def test_compat_has_one_batch() -> None:
    scene = rebatched().with_cluster(options(mode="compat")).with_plan(solve(formulation="compat"))
    scene = scene.with_plan(lambda plan: replace(plan, packing="per-stage"))
    assert any("its stages differ in batch" in fault for fault in scene.faults())


# ------------------------------------------------------------------------------------- objectives


def test_a_minimum_has_its_bound_below() -> None:
    for objective, unit, value in (("least-cost", "per-hour", 5.0), ("fewest-gpus", "gpus", 3)):
        scene = sought(objective)
        assert (scene.plan.solve.unit, scene.plan.solve.value) == (unit, value)
        loose = solve(bound=value / 2, gap=0.5, status="feasible")
        assert scene.with_plan(loose).faults() == []
        above = scene.with_plan(solve(bound=value * 2, gap=0.5, status="feasible")).faults()
        assert above == [
            f"bound: {value * 2:g} is above the value {value:g}, {objective} is a minimum"
        ]


def test_a_maximum_has_its_bound_above() -> None:
    for scene in (plain(), sought("goodput")):
        value = scene.plan.solve.value
        loose = solve(bound=value * 2, gap=0.5, status="feasible")
        assert scene.with_plan(loose).faults() == []
        below = scene.with_plan(solve(bound=value / 2, gap=0.5, status="feasible")).faults()
        assert len(below) == 1
        assert "is below the value" in below[0]


def test_the_value_is_that_of_the_objective() -> None:
    for objective, expected in (("goodput", 500 / 3), ("least-cost", 5), ("fewest-gpus", 3)):
        wrong = sought(objective).with_plan(solve(value=2.5, bound=2.5)).faults()
        assert any(f"value: is 2.5, the plan has {expected:.6g}" in fault for fault in wrong), wrong
    two = two_models()
    assert (two.plan.solve.value, two.plan.solve.objective_rps) == (200.0, 50.0)


# -------------------------------------------------------------------------- any number, any change

FREE = {"seconds", "seed"}  # these promise nothing


def numbers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where in a plan there is a number."""
    if isinstance(value, int | float | Fraction):
        yield path
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from numbers(each, (*path, index))
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in FREE:
                yield from numbers(getattr(value, field.name), (*path, field.name))


def replaced(value: Any, path: tuple[str | int, ...], change: Callable[[Any], Any]) -> Any:
    """Return the plan with the number at that place changed."""
    if not path:
        return change(value)
    head, *rest = path
    if isinstance(head, int):
        inner = replaced(value[head], tuple(rest), change)
        return (*value[:head], inner, *value[head + 1 :])
    return replace(value, **{head: replaced(getattr(value, head), tuple(rest), change)})


def shifted(number: Any, steps: int) -> Any:
    """Return another number of the same kind: by whole steps, or tenths of a per mille."""
    if isinstance(number, bool):
        return not number
    if isinstance(number, Fraction):
        return number + steps * Fraction(1, 60)
    if isinstance(number, int):
        return number + steps
    return number * (1 + steps / 10_000) if number else steps / 10_000


@pytest.mark.parametrize("name", SCENES)
@given(data=st.data())
def test_no_number_of_a_plan_can_be_changed_unnoticed(name: str, data: st.DataObject) -> None:
    scene = SCENES[name]()
    place = data.draw(st.sampled_from(list(numbers(scene.plan))))
    # One more instance may fit what is left of a GPU, and is no fault then.
    most = -1 if place[-1] == "instances" else 50
    steps = data.draw(st.integers(-50, most).filter(bool))
    bent = replaced(scene.plan, place, lambda number: shifted(number, steps))
    assert scene.with_plan(lambda _: bent).faults() != []


def test_faults_are_told_in_one_line() -> None:
    assert told(["a"]) == "a"
    assert told(["a", "b", "c"]) == "a (and 2 more)"

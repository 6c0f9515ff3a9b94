"""What the verifier holds plans to, rule by rule: batches, links, packing, objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from penstock.domain.ids import GpuClassName, InstanceId, PoolId
from penstock.domain.placement import GpuSlot, gpu_slots
from planner.verify import gpus
from tests.unit.planner.fleets import DIGITS, gpu_class, mixed_fleet, profile
from tests.unit.planner.handmade import Stage, plan_by_hand
from tests.unit.planner.scenes import (
    HEAD,
    PLAIN,
    TAIL_ON_SLOW,
    Scene,
    classes,
    crowd,
    fast_and_slow,
    options,
    pipeline,
    plain,
    rebatched,
    shared,
    solve,
    sought,
    two_models,
)

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
    cluster, profiles = fast_and_slow(2, 80)
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
    cluster, profiles = fast_and_slow(2, 100, mode=mode, packing="per-stage")
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

"""The verifier must notice every way a plan can lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.cluster import Cluster
from penstock.domain.plan import Digest
from planner.verify import find_faults, told
from tests.unit.planner.fleets import DIGITS, SLOW
from tests.unit.planner.scenes import (
    SCENES,
    Change,
    Scene,
    asked,
    both,
    classes,
    model,
    options,
    pipeline,
    plain,
    planned_class,
    pool,
    rebatched,
    second_copy,
    second_pool,
    shared,
    solve,
    sought,
    transfer,
    twin_pipeline,
    two_models,
)


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

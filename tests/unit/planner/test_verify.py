"""The verifier must notice every way a plan can lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeAlias

import pytest

from penstock.domain.cluster import Cluster, ServedModel
from penstock.domain.ids import PipelineId, PoolId
from penstock.domain.plan import Digest, ModelPlan, Pipeline, Plan, Pool
from planner.digests import input_digests
from planner.inputs import Profiles
from planner.planning import make_plan
from planner.verify import find_faults, told
from tests.unit.planner.fleets import DIGITS, SLOW, mixed_fleet

Change: TypeAlias = Callable[[Plan], Plan]


@pytest.fixture(scope="module")
def planned() -> tuple[Plan, Cluster, Profiles]:
    cluster, profiles = mixed_fleet(slo_ms=80)
    return make_plan(cluster, profiles), cluster, profiles


def in_model(change: Callable[[ModelPlan], ModelPlan]) -> Change:
    return lambda plan: replace(plan, models=(change(plan.models[0]), *plan.models[1:]))


def model(**fields: Any) -> Change:
    return in_model(lambda each: replace(each, **fields))


def pool(place: int, **fields: Any) -> Change:
    def change(each: ModelPlan) -> ModelPlan:
        pools: list[Pool] = list(each.pools)
        pools[place] = replace(pools[place], **fields)
        return replace(each, pools=tuple(pools))

    return in_model(change)


def pipeline(**fields: Any) -> Change:
    def change(each: ModelPlan) -> ModelPlan:
        pipelines: list[Pipeline] = list(each.pipelines)
        pipelines[0] = replace(pipelines[0], **fields)
        return replace(each, pipelines=tuple(pipelines))

    return in_model(change)


def solve(**fields: Any) -> Change:
    return lambda plan: replace(plan, solve=replace(plan.solve, **fields))


def gpu_class(**fields: Any) -> Change:
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


def split_pool_twice(plan: Plan) -> Plan:
    first = plan.models[0].pools[0]
    return model(pools=(first, *plan.models[0].pools))(plan)


CORRUPTED: dict[str, tuple[Change, str]] = {
    # coverage
    "a gap between stages": (pool(0, end_block=1), "does not cover"),
    "an overlap of stages": (pool(1, first_block=1), "does not cover"),
    "blocks missing at the end": (pool(1, end_block=3), "does not cover"),
    "blocks missing at the start": (pool(0, first_block=1), "does not cover"),
    "an empty stage": (both(pool(0, end_block=0), pool(1, first_block=0)), "does not cover"),
    "stages in the wrong order": (pool(0, position=1), "positions"),
    "another number of blocks": (model(blocks=5), "profiled with another number"),
    "an unknown pool": (pipeline(pools=("nowhere",), transfers=()), "not in the plan"),
    "a pipeline without pools": (pipeline(pools=(), transfers=()), "not in the plan"),
    "a transfer too few": (pipeline(transfers=()), "a transfer for each cut"),
    "stages of different batch": (
        pool(0, batch=1, latency_us_by_batch=(8_000,)),
        "differ in batch",
    ),
    "two pools of one id": (split_pool_twice, "same id"),
    "a pool without a pipeline": (model(pipelines=()), "no pipeline leads"),
    # inventory
    "more GPUs than there are": (pool(1, instances=4), "has room for 3"),
    "instances without end": (pool(1, instances=10**15), "has room for 3"),
    "no instances": (pool(0, instances=0), "needs an instance"),
    "an unknown GPU class": (pool(0, gpu_class="H100"), "not in the cluster"),
    "another count": (gpu_class(count=2), "planned as"),
    "another network": (gpu_class(network_gbps=40.0), "planned as"),
    "a class too few": (lambda plan: replace(plan, gpu_classes=plan.gpu_classes[:1]), "planned as"),
    "a share the class does not allow": (pool(1, share=Fraction(1, 2)), "was not profiled"),
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
    "another hop overhead": (lambda plan: replace(plan, hop_overhead_us=0), "hop_overhead_us"),
    "a smaller cut": (transfer(bytes_per_sample=1), "cut is 100000"),
    "a faster link": (transfer(us_per_sample=1), "is 80"),
    # capacity and objective
    "too much flow": (
        both(pipeline(throughput_rps=200.0), model(throughput_rps=200.0)),
        "would compute 120.0% of the time",
    ),
    "too few instances": (pool(1, instances=1), "would compute 150.0%"),
    "flow used twice": (second_copy, "would compute 200.0%"),
    "a pipeline without flow": (pipeline(throughput_rps=0.0), "has no throughput"),
    "a model without flow": (model(throughput_rps=0.0), "has no throughput"),
    "flow that is not a number": (pipeline(throughput_rps=float("nan")), "has no throughput"),
    "a sum that is not one": (model(throughput_rps=100.0), "not the sum"),
    "a higher objective": (solve(objective_rps=1e6), "objective_rps"),
    "a bound below the objective": (solve(bound_rps=100.0), "bound_rps"),
    "a wrong gap": (solve(gap=0.5), "gap"),
    # identity
    "a model nobody asked for": (model(model="other"), "models: planned"),
    "a model too few": (lambda plan: replace(plan, models=()), "models: planned"),
    "other inputs": (
        lambda plan: replace(plan, inputs=(Digest(name="cluster", sha256="0"),)),
        "has changed",
    ),
}


def faults(plan: Plan, cluster: Cluster, profiles: Profiles) -> list[str]:
    return list(find_faults(plan, cluster, profiles, input_digests(cluster, profiles)))


def test_a_good_plan_has_no_faults(planned: tuple[Plan, Cluster, Profiles]) -> None:
    assert faults(*planned) == []


@pytest.mark.parametrize("name", CORRUPTED)
def test_every_corruption_is_noticed(name: str, planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    change, expected = CORRUPTED[name]
    found = faults(change(plan), cluster, profiles)
    assert any(expected in fault for fault in found), found


def test_gpus_are_counted_over_all_pools() -> None:
    cluster, profiles = mixed_fleet(slo_ms=120)
    plan = make_plan(cluster, profiles)
    place = [each.id for each in plan.models[0].pools].index(PoolId("digits.0.slow.1of1.0-3.b1"))
    found = faults(pool(place, instances=2)(plan), cluster, profiles)
    assert found == ["GPU class slow: 4 GPUs used of 3"]


def test_limits_of_the_options_are_checked(planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    tight = replace(cluster, options=replace(cluster.options, max_stages=1, max_batch=1))
    found = " ".join(faults(plan, tight, profiles))
    assert "more than max_stages" in found
    assert "larger than max_batch" in found


def test_memory_of_the_share_is_checked(planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    tiny = tuple(replace(each, memory_bytes=1 << 20) for each in cluster.gpu_classes)
    planned_tiny = tuple(replace(each, memory_bytes=1 << 20) for each in plan.gpu_classes)
    found = faults(
        replace(plan, gpu_classes=planned_tiny), replace(cluster, gpu_classes=tiny), profiles
    )
    assert any("does not fit" in fault for fault in found)


def test_links_are_checked(planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    crowd = 500  # GPUs behind one card: 167 rps · 80 µs · 500 is more than a second's worth
    found = faults(
        replace(
            plan,
            gpu_classes=(
                replace(plan.gpu_classes[0], gpus_per_server=crowd),
                *plan.gpu_classes[1:],
            ),
        ),
        replace(
            cluster,
            gpu_classes=(
                replace(cluster.gpu_classes[0], gpus_per_server=crowd),
                *cluster.gpu_classes[1:],
            ),
        ),
        profiles,
    )
    assert any("would send" in fault for fault in found)


def test_an_asked_rate_is_checked(planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    served: ServedModel = replace(cluster.models[0], rate_rps=1000.0)
    found = faults(plan, replace(cluster, models=(served,)), profiles)
    assert any("of the 1000 asked" in fault for fault in found)


def test_other_blocks_are_noticed(planned: tuple[Plan, Cluster, Profiles]) -> None:
    plan, cluster, profiles = planned
    other = {**profiles, (DIGITS, SLOW): replace(profiles[DIGITS, SLOW], blocks_digest="new")}
    assert any("other blocks" in fault for fault in faults(plan, cluster, other))


def test_faults_are_told_in_one_line() -> None:
    assert told(["a"]) == "a"
    assert told(["a", "b", "c"]) == "a (and 2 more)"

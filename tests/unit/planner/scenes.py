"""Plans without a fault, what they are for, and ways to change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

from penstock.domain.cluster import Cluster
from penstock.domain.ids import GpuClassName, ModelName, PipelineId
from penstock.domain.plan import ModelPlan, Pipeline, Plan, Pool
from planner.inputs import Profiles
from planner.verify import find_faults
from tests.unit.planner.fleets import gpu_class, mixed_fleet, profile, served
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


def fast_and_slow(slow: int, slo_ms: float, **fields: Any) -> tuple[Cluster, Profiles]:
    """One fast GPU, divisible in two, and some slow ones; see `mixed_fleet` for latencies."""
    cluster, profiles = mixed_fleet(slo_ms=slo_ms, **fields)
    fast, slow_class = cluster.gpu_classes
    return replace(cluster, gpu_classes=(fast, replace(slow_class, count=slow))), profiles


@cache
def plain(**fields: Any) -> Scene:
    """Two stages of batch 2, every GPU in use; the first is busy all the time."""
    cluster, profiles = fast_and_slow(2, 80, **fields)
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
    cluster, profiles = fast_and_slow(1, 100, packing=packing)
    fast, slow = cluster.gpu_classes
    cluster = replace(cluster, gpu_classes=(fast, replace(slow, network_gbps=slow_gbps)))
    ways = [(50.0, (HEAD, TAIL_ON_SLOW)), (to_fast_rps, (HEAD, TAIL_ON_FAST))]
    return Scene(plan_by_hand(cluster, profiles, {"digits": ways}), cluster, profiles)


@cache
def rebatched() -> Scene:
    """Two samples together on fast, then one after the other on slow."""
    cluster, profiles = fast_and_slow(2, 100, rebatch=True)
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
    cluster, profiles = fast_and_slow(1, 200)
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

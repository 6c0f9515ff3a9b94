from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.domain.cluster import Cluster
from penstock.domain.errors import Infeasible
from penstock.domain.units import BYTES_PER_GIB
from planner.inputs import Profiles
from planner.planning import make_plan
from tests.unit.planner.fleets import DIGITS, FAST, SLOW, gpu_class, mixed_fleet, served


def reasons(cluster: Cluster, profiles: Profiles) -> tuple[str, ...]:
    with pytest.raises(Infeasible) as caught:
        make_plan(cluster, profiles)
    return caught.value.reasons


def test_an_slo_out_of_reach_tells_what_the_fastest_path_takes() -> None:
    (reason,) = reasons(*mixed_fleet(slo_ms=20))
    assert reason == (
        "model digits: SLO: the fastest path (fast, batch 1) takes compute 16.00 ms + "
        "hop overhead 1.00 ms + margin 8.00 ms > SLO 20.00 ms: short by 5.00 ms; "
        "slo_ms 28.334 would do"
    )


def test_a_block_too_large_for_every_gpu_is_named() -> None:
    cluster, profiles = mixed_fleet()
    weights = (1, 3 * BYTES_PER_GIB, 1, 1)
    big = {
        key: replace(each, weight_bytes=weights, activation_bytes=(0,) * 4)
        for key, each in profiles.items()
    }
    fast, slow = cluster.gpu_classes
    small = (
        replace(fast, memory_bytes=BYTES_PER_GIB),
        replace(slow, memory_bytes=2 * BYTES_PER_GIB),
    )
    (reason,) = reasons(replace(cluster, gpu_classes=small), big)
    assert reason == (
        "model digits: memory: block 1 alone needs 3.00 GiB, slow has 2.00 GiB: short by 1.00 GiB"
    )


def test_a_model_too_large_for_the_stages_allowed() -> None:
    cluster, profiles = mixed_fleet(max_stages=1)
    big = {key: replace(each, weight_bytes=(BYTES_PER_GIB,) * 4) for key, each in profiles.items()}
    classes = tuple(replace(each, memory_bytes=3 * BYTES_PER_GIB) for each in cluster.gpu_classes)
    (reason,) = reasons(replace(cluster, gpu_classes=classes), big)
    assert "its 4 blocks need 4.00 GiB together, fast has 3.00 GiB" in reason
    assert "max_stages 1" in reason


def test_a_batch_limit_below_the_profile() -> None:
    cluster, profiles = mixed_fleet(max_batch=1)
    no_single = {
        key: replace(each, rows=tuple(row for row in each.rows if row.batch > 1))
        for key, each in profiles.items()
    }
    (reason,) = reasons(cluster, no_single)
    assert reason == (
        "model digits: batch: the smallest profiled is 2, max_batch is 1; max_batch 2 would do"
    )


def test_too_few_gpus_for_every_model() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    models = tuple(served(name, 45) for name in ("digits", "second", "third"))
    every = {(m.name, c): profiles[DIGITS, c] for m in models for _, c in profiles}
    assert reasons(replace(cluster, models=models), every) == (
        "GPUs: not enough for one instance of every stage of each model; 2 more fast would do",
        "SLO: or raise every slo_ms by 100%",
    )


def test_slos_longer_by_as_much_as_told_would_do() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    models = tuple(served(name, 90) for name in ("digits", "second", "third"))
    every = {(m.name, c): profiles[DIGITS, c] for m in models for _, c in profiles}
    make_plan(replace(cluster, models=models), every)


def test_every_model_that_cannot_be_served_is_told() -> None:
    cluster, profiles = mixed_fleet()
    models = (served("digits", 1), served("second", 2))
    every = {(m.name, c): profiles[DIGITS, c] for m in models for _, c in profiles}
    told = reasons(replace(cluster, models=models), every)
    assert [reason.split(":")[0] for reason in told] == ["model digits", "model second"]


def test_a_rate_out_of_reach_tells_how_much_is() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    asking = replace(cluster, models=(served("digits", 45, rate_rps=250.0),))
    assert reasons(asking, profiles) == (
        "GPUs: not enough for every rate asked for; 1 more fast would do",
        "model digits: rate_rps: 250 asked, only 125 reachable (50.0%) when every model with a "
        "rate gets the same part of it",
    )


def test_a_rate_within_reach_is_reached() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    asking = replace(cluster, models=(served("digits", 45, rate_rps=124.0),))
    assert make_plan(asking, profiles).models[0].throughput_rps >= 124


def test_a_rate_is_served_before_weights() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60, max_stages=1, max_batch=1)
    models = (served("digits", 60, rate_rps=180.0), served("second", 60))
    every = {(m.name, c): profiles[DIGITS, c] for m in models for _, c in profiles}
    fleet = replace(
        cluster, gpu_classes=(gpu_class("fast", 4), gpu_class("slow", 1)), models=models
    )
    first, second = make_plan(fleet, every).models
    assert first.throughput_rps == pytest.approx(3 * 62.5)
    assert second.throughput_rps == pytest.approx(62.5)
    more = replace(fleet, models=(replace(models[0], rate_rps=200.0), models[1]))
    assert any("200 asked, only 187.5 reachable (93.8%)" in each for each in reasons(more, every))


def test_more_gpus_of_the_kind_told_would_do() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    fast, slow = cluster.gpu_classes
    models = (served("digits", 45, rate_rps=250.0),)
    enough = (replace(fast, count=fast.count + 1), slow)
    found = make_plan(replace(cluster, models=models, gpu_classes=enough), profiles)
    assert found.models[0].throughput_rps >= 250


def test_a_price_cap_tells_what_the_cheapest_plan_costs() -> None:
    cluster, profiles = mixed_fleet(slo_ms=45)
    fast, slow = cluster.gpu_classes
    priced = (replace(fast, price_per_hour=2.0), replace(slow, price_per_hour=0.5))
    models = (served("digits", 45, rate_rps=100.0),)

    def capped(cap: float) -> tuple[Cluster, Profiles]:
        options = replace(cluster.options, max_price_per_hour=cap)
        return replace(cluster, gpu_classes=priced, models=models, options=options), profiles

    (reason,) = reasons(*capped(2.2))
    assert reason == (
        "price: max_price_per_hour is 2.2, the cheapest plan costs 3; max_price_per_hour 3 would do"
    )
    assert make_plan(*capped(3.0)).models[0].throughput_rps >= 100


def test_a_model_banned_from_every_class() -> None:
    cluster, profiles = mixed_fleet()
    banned = replace(cluster.models[0], forbidden_gpu_classes=(FAST, SLOW))
    (reason,) = reasons(replace(cluster, models=(banned,)), profiles)
    assert reason == ("model digits: gpu_classes: none is left that it may run on; allow one")


def test_a_latency_cap_tells_the_least_there_is() -> None:
    cluster, profiles = mixed_fleet(slo_ms=60)
    capped = replace(cluster.models[0], max_latency_us=10_000)
    (reason,) = reasons(replace(cluster, models=(capped,)), profiles)
    assert reason.endswith("takes 17.00 ms, more than max_latency_ms 10; raise it to 17")
    enough = replace(capped, max_latency_us=17_000)
    make_plan(replace(cluster, models=(enough,)), profiles)

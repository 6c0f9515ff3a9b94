from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from penstock.domain.cluster import Cluster
from penstock.domain.errors import InvalidCluster, InvalidProfile
from planner.inputs import gather_inputs, margin_us
from tests.unit.planner.fleets import DIGITS, FAST, SLOW, mixed_fleet, profile, whole


def test_profiles_are_joined_by_model_and_class() -> None:
    cluster, profiles = mixed_fleet()
    (model,) = gather_inputs(cluster, profiles).models
    assert model.blocks == 4
    assert model.latencies[SLOW].stage_latency_us(2, 4, 1, Fraction(1)) == 12_000
    assert model.stage_memory_bytes(0, 2, 3) == 2 * (1 << 20) + 3 * (1 << 16)


def test_the_margin_is_a_part_of_the_slo() -> None:
    assert margin_us(100_000, 0.4) == 40_000


def test_an_empty_cluster_is_refused() -> None:
    cluster, profiles = mixed_fleet()
    with pytest.raises(InvalidCluster, match="models"):
        gather_inputs(replace(cluster, models=()), profiles)
    with pytest.raises(InvalidCluster, match="gpu_classes"):
        gather_inputs(replace(cluster, gpu_classes=()), profiles)


def test_a_missing_profile_is_named() -> None:
    cluster, profiles = mixed_fleet()
    with pytest.raises(InvalidProfile, match="digits on slow"):
        gather_inputs(cluster, {(DIGITS, FAST): profiles[DIGITS, FAST]})


@pytest.mark.parametrize(
    "field", ["blocks", "cut_bytes", "weight_bytes", "activation_bytes", "blocks_digest"]
)
def test_profiles_of_different_blocks_are_refused(field: str) -> None:
    cluster, profiles = mixed_fleet()
    slow = profiles[DIGITS, SLOW]
    fast = replace(profiles[DIGITS, FAST], blocks_digest="a")
    changed = {
        "blocks": profile("digits", "slow", whole([1, 2, 3])),
        "cut_bytes": replace(slow, cut_bytes=(1, 2, 3)),
        "activation_bytes": replace(slow, activation_bytes=(1, 2, 3, 4)),
        "weight_bytes": replace(slow, weight_bytes=(1, 2, 3, 4)),
        "blocks_digest": replace(slow, blocks_digest="b"),
    }
    with pytest.raises(InvalidProfile, match=f"digits on slow: {field}"):
        gather_inputs(cluster, {(DIGITS, FAST): fast, (DIGITS, SLOW): changed[field]})


def test_a_gap_in_a_profile_is_named() -> None:
    cluster, profiles = mixed_fleet()
    slow = profiles[DIGITS, SLOW]
    gappy = replace(slow, rows=tuple(row for row in slow.rows if (row.block, row.batch) != (2, 2)))
    with pytest.raises(InvalidProfile, match="block 2, batch 2, share 1"):
        gather_inputs(cluster, {**profiles, (DIGITS, SLOW): gappy})


def test_a_profile_needs_the_whole_gpu() -> None:
    cluster, profiles = mixed_fleet()
    half = profile("digits", "slow", {(1, Fraction(1, 2)): [1, 2, 3, 4]})
    with pytest.raises(InvalidProfile, match="1/1"):
        gather_inputs(cluster, {**profiles, (DIGITS, SLOW): half})


def test_cluster_type_is_kept() -> None:
    cluster, profiles = mixed_fleet(slo_ms=50)
    assert isinstance(cluster, Cluster)
    assert gather_inputs(cluster, profiles).options == cluster.options

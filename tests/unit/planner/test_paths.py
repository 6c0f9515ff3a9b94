from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from planner.candidates import CandidatePath, Rates, batch_build_us
from planner.enumeration import enumerate_paths as tables
from planner.inputs import PlannerInputs, gather_inputs
from planner.paths import PathTable
from tests.unit.planner.fleets import DIGITS, mixed_fleet

AT_ONCE = {DIGITS: math.inf}


def inputs(slo_ms: float = 60, **options: object) -> PlannerInputs:
    return gather_inputs(*mixed_fleet(slo_ms, **options))


def every(table: PathTable) -> list[CandidatePath]:
    return table.candidates(np.arange(len(table)))


def enumerate_paths(given: PlannerInputs, rates: Rates) -> list[CandidatePath]:
    return [path for table in tables(given, rates) for path in every(table)]


def shape(path: CandidatePath) -> tuple[object, ...]:
    return tuple(
        (pool.gpu_class.name, pool.m, pool.first_block, pool.end_block, pool.batch)
        for pool in path.pools
    )


def test_paths_cover_the_blocks_once_at_one_batch() -> None:
    paths = enumerate_paths(inputs(max_stages=3), AT_ONCE)
    assert len({shape(path) for path in paths}) == len(paths) > 50
    for path in paths:
        assert path.pools[0].first_block == 0
        assert path.pools[-1].end_block == 4
        assert all(left.end_block == right.first_block for left, right in pairwise(path.pools))
        assert [pool.position for pool in path.pools] == list(range(len(path.pools)))
        assert {pool.batch for pool in path.pools} == {path.batch}
        assert len(path.pools) <= 3


def test_latency_adds_stages_transfers_hops_and_batch_building() -> None:
    paths = {shape(path): path for path in enumerate_paths(inputs(120), {DIGITS: 100.0})}
    path = paths[("fast", 1, 0, 2, 2), ("slow", 1, 2, 4, 2)]
    assert path.transfers_us == (80,)  # 100 kB over 10 Gbit/s
    assert path.batch_build_us == 13_000  # 1.3 · 1 / 100 s
    assert path.latency_us == 12_000 + 18_000 + 2 * 80 + 3 * 500 + 13_000


def test_a_path_filling_at_another_rate_is_the_one_enumerated_at_that_rate() -> None:
    given = inputs(200, rebatch=True)
    quick, slow = (enumerate_paths(given, {DIGITS: rate}) for rate in (math.inf, 50.0))
    expected = {shape(path): path for path in slow}
    assert any(path.batch_build_us for path in slow)
    for path in quick:
        if shape(path) in expected:
            slower = path.filling_at(50.0, given.options.batch_build_factor)
            same = expected[shape(path)]
            assert (slower.batch_build_us, slower.latency_us) == (
                same.batch_build_us,
                same.latency_us,
            )
            back = slower.filling_at(math.inf, given.options.batch_build_factor)
            assert (back.batch_build_us, back.latency_us) == (0, path.latency_us)


@pytest.mark.parametrize(("slo_ms", "fits"), [(36.0, True), (35.9, False)])
def test_the_slo_bounds_latency_and_margin(slo_ms: float, fits: bool) -> None:
    # Whole on half of fast: 28 ms + 2 hops of 0.5 ms = 29 ms, and 36 ms − a margin of 7 ms.
    paths = enumerate_paths(inputs(slo_ms, slo_margin=7.0 / 36, max_stages=1), AT_ONCE)
    assert ((("fast", 2, 0, 4, 1),) in {shape(path) for path in paths}) == fits


def test_memory_is_counted_per_share() -> None:
    cluster, profiles = mixed_fleet(1000)
    need = 4 * (1 << 20) + 2 * (1 << 16)  # whole model, batch 2
    fast = replace(cluster.gpu_classes[0], memory_bytes=2 * need - 1)
    cluster = replace(cluster, gpu_classes=(fast, cluster.gpu_classes[1]))
    found = {shape(path) for path in enumerate_paths(gather_inputs(cluster, profiles), AT_ONCE)}
    assert (("fast", 1, 0, 4, 2),) in found
    assert (("fast", 2, 0, 4, 2),) not in found
    assert (("fast", 2, 0, 4, 1),) in found


def test_batches_and_shares_stay_within_the_limits() -> None:
    paths = enumerate_paths(inputs(1000, max_batch=1), AT_ONCE)
    assert {path.batch for path in paths} == {1}
    assert {pool.m for path in paths for pool in path.pools} == {1, 2}


def test_paths_with_a_stage_in_common_share_its_pool() -> None:
    paths = [path for path in enumerate_paths(inputs(1000), AT_ONCE) if len(path.pools) == 2]
    pools = {pool for path in paths for pool in path.pools}
    keys = {(shape(path)[place], place) for path in paths for place in range(2)}
    assert len(pools) == len(keys)


def test_loads_are_the_inverse_of_the_instance_throughput() -> None:
    cluster, profiles = mixed_fleet(1000)
    fast, slow = cluster.gpu_classes
    cluster = replace(cluster, gpu_classes=(replace(fast, gpus_per_server=4), slow))
    paths = enumerate_paths(gather_inputs(cluster, profiles), AT_ONCE)
    path = next(p for p in paths if shape(p) == (("fast", 2, 0, 2, 1), ("slow", 1, 2, 4, 1)))
    assert path.load(0) == pytest.approx(14_000 / 1e6)
    assert path.load(1) == pytest.approx(12_000 / 1e6)
    assert path.instance_rps == pytest.approx(1e6 / 14_000)


def test_a_link_that_is_slower_than_the_gpu_sets_the_load() -> None:
    cluster, profiles = mixed_fleet(1000)
    fast, slow = cluster.gpu_classes
    narrow = (replace(fast, gpus_per_server=4, network_gbps=0.3), slow)
    given = gather_inputs(replace(cluster, gpu_classes=narrow), profiles)
    path = next(
        p
        for p in enumerate_paths(given, AT_ONCE)
        if shape(p) == (("fast", 2, 0, 2, 1), ("slow", 1, 2, 4, 1))
    )
    sample_us = 100_000 * 8 / 300  # not rounded: links carry bytes, not microseconds
    assert path.transfers_us == (2667,)
    assert path.load(0) == pytest.approx(sample_us * 2 * 4 / 1e6, rel=1e-12)
    assert path.load(1) == pytest.approx(12_000 / 1e6)


def test_arrays_and_objects_tell_the_same() -> None:
    given = inputs(200, max_stages=3, rebatch=True)
    (table,) = tables(given, {DIGITS: 300.0})
    for number, path in enumerate(every(table)):
        loads = [path.load(position) for position in range(len(path.pools))]
        assert table.loads[number, : len(loads)] == pytest.approx(loads)
        assert table.latency_us[number] == path.latency_us
        use = dict.fromkeys(("fast", "slow"), 0.0)
        for load, pool in zip(loads, path.pools, strict=True):
            use[pool.gpu_class.name] += load / pool.m
        assert table.use[number] == pytest.approx(list(use.values()))


def test_stages_may_differ_in_batch_where_that_is_asked() -> None:
    given = inputs(200, rebatch=True)
    found = {shape(path): path for path in enumerate_paths(given, {DIGITS: 100.0})}
    split = found[("fast", 1, 0, 2, 2), ("slow", 1, 2, 4, 1)]
    # The two samples of a batch run one after the other in the second stage.
    assert split.latency_us == 12_000 + 2 * 80 + 2 * 12_000 + 3 * 500 + 13_000
    gathered = found[("fast", 1, 0, 2, 1), ("slow", 1, 2, 4, 2)]
    assert gathered.latency_us == 8_000 + 80 + 18_000 + 3 * 500 + 13_000
    assert not any(len({pool.batch for pool in p.pools}) > 1 for p in paths_without_rebatch())


def paths_without_rebatch() -> list[CandidatePath]:
    return enumerate_paths(inputs(200), {DIGITS: 100.0})


def test_pins_bans_stages_and_latencies_of_one_model() -> None:
    cluster, profiles = mixed_fleet(200, max_stages=3)
    model = cluster.models[0]

    def classes(**fields: object) -> set[str]:
        changed = replace(cluster, models=(replace(model, **fields),))  # type: ignore[arg-type]
        found = enumerate_paths(gather_inputs(changed, profiles), AT_ONCE)
        return {pool.gpu_class.name for path in found for pool in path.pools}

    assert classes() == {"fast", "slow"}
    assert classes(gpu_classes=("slow",)) == {"slow"}
    assert classes(forbidden_gpu_classes=("slow",)) == {"fast"}
    assert classes(gpu_classes=("slow",), forbidden_gpu_classes=("slow",)) == set()
    short = replace(cluster, models=(replace(model, max_stages=1, max_latency_us=17_000),))
    found = enumerate_paths(gather_inputs(short, profiles), AT_ONCE)
    assert {shape(path) for path in found} == {(("fast", 1, 0, 4, 1),)}


def test_a_workspace_takes_memory_of_every_instance() -> None:
    cluster, profiles = mixed_fleet(1000, max_stages=1, max_batch=1)
    need = 4 * (1 << 20) + (1 << 16)
    fast = replace(cluster.gpu_classes[0], memory_bytes=2 * need)
    for workspace, shares in ((0, {1, 2}), (1, {1})):
        options = replace(cluster.options, workspace_bytes=workspace)
        given = replace(cluster, gpu_classes=(fast, cluster.gpu_classes[1]), options=options)
        found = enumerate_paths(gather_inputs(given, profiles), AT_ONCE)
        assert {p.pools[0].m for p in found if p.pools[0].gpu_class.name == "fast"} == shares


def test_pools_are_private_to_a_tuple_of_classes_in_compat_mode() -> None:
    found = enumerate_paths(inputs(1000, mode="compat", packing="per-stage"), AT_ONCE)
    for path in found:
        classes = tuple(pool.gpu_class.name for pool in path.pools)
        assert all(pool.route == classes for pool in path.pools)


def test_batch_building_takes_no_time_for_one_sample_or_at_infinite_rate() -> None:
    assert batch_build_us(1, 10.0, 1.3) == 0
    assert batch_build_us(8, math.inf, 1.3) == 0
    assert batch_build_us(8, 0.0, 0.0) == 0
    assert batch_build_us(3, 1000.0, 1.3) == 2600


def test_the_order_is_fixed() -> None:
    first, second = (enumerate_paths(inputs(), AT_ONCE) for _ in range(2))
    assert [shape(path) for path in first] == [shape(path) for path in second]

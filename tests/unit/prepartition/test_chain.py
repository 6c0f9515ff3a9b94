"""The exact partition of a chain on cases worked out by hand."""

from __future__ import annotations

import time

import pytest

from penstock.prepartition.chain import BANDS, Band, partition_chain


def test_cuts_fall_where_few_bytes_are_live() -> None:
    found = partition_chain([[1] * 6], [9, 9, 1, 9, 9], max_blocks=2)
    assert found.boundaries == (0, 3, 6)
    assert found.cut_bytes == 1
    assert found.band == Band(7, 13)


def test_a_cheap_cut_outside_the_band_is_left_alone() -> None:
    found = partition_chain([[1] * 10], [0, 9, 9, 9, 5, 9, 9, 9, 9], max_blocks=2)
    assert found.boundaries == (0, 5, 10)


def test_every_gpu_class_has_to_be_even_at_once() -> None:
    even, heavy_end, cuts = [1, 1, 1, 1], [1, 1, 1, 5], [9, 9, 5]
    assert partition_chain([even], cuts, max_blocks=2).boundaries == (0, 2, 4)
    assert partition_chain([heavy_end], cuts, max_blocks=2).boundaries == (0, 3, 4)
    both = partition_chain([even, heavy_end], cuts, max_blocks=2)
    assert (both.boundaries, both.band) == ((0, 3, 4), Band(5, 15))


def test_bands_are_relaxed_in_order() -> None:
    # Two blocks of 1 : 3 are half and one and a half of an equal share.
    found = partition_chain([[1, 3]], [4], max_blocks=2)
    assert found.boundaries == (0, 1, 2)
    assert found.band == BANDS[1]
    assert found.band.as_multiples == (0.5, 1.5)


def test_one_block_less_when_no_band_can_be_met() -> None:
    found = partition_chain([[1, 100, 100]], [4, 4], max_blocks=3)
    assert found.boundaries == (0, 2, 3)
    assert partition_chain([[1, 1000]], [4], max_blocks=2).boundaries == (0, 2)


def test_a_single_layer_is_one_block() -> None:
    found = partition_chain([[0]], [], max_blocks=10)
    assert (found.blocks, found.boundaries, found.cut_bytes) == (1, (0, 1), 0)


def test_among_equal_sums_the_earliest_cut_wins() -> None:
    found = partition_chain([[1] * 7], [9, 9, 3, 3, 9, 9], max_blocks=2)
    assert found.boundaries == (0, 3, 7)


@pytest.mark.parametrize(
    ("latencies", "cut_bytes", "max_blocks"),
    [
        ([], [], 2),
        ([[1, 2]], [], 2),
        ([[1], [1, 1]], [], 2),
        ([[1, -1]], [0], 2),
        ([[1, 1]], [-1], 2),
        ([[1, 1]], [1], 0),
    ],
)
def test_numbers_that_make_no_chain_are_refused(
    latencies: list[list[int]], cut_bytes: list[int], max_blocks: int
) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        partition_chain(latencies, cut_bytes, max_blocks)


def test_a_long_chain_takes_no_noticeable_time() -> None:
    layers = 2000
    latencies = [[(7 * i * (c + 3)) % 997 for i in range(layers)] for c in range(8)]
    latencies[0][1000] = 10**6  # keeps ten even blocks from existing: every band is tried
    begin = time.process_time()
    found = partition_chain(latencies, [(i * 31) % 1009 for i in range(layers - 1)], 10)
    assert found.blocks < 10
    assert time.process_time() - begin < 10

"""The exact chain partition against brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.prepartition.chain import BANDS, Band, partition_chain


def brute_force(
    latencies: list[list[int]], cut_bytes: list[int], max_blocks: int
) -> tuple[int, Band, int]:
    layers = len(cut_bytes) + 1
    for blocks in range(min(max_blocks, layers), 0, -1):
        for band in BANDS:
            costs = [
                sum(cut_bytes[cut - 1] for cut in cuts)
                for cuts in combinations(range(1, layers), blocks - 1)
                if all(fits(row, (0, *cuts, layers), band) for row in latencies)
            ]
            if costs:
                return blocks, band, min(costs)
    raise AssertionError("one block always fits")


def fits(row: list[int], boundaries: tuple[int, ...], band: Band) -> bool:
    blocks = len(boundaries) - 1
    shares = [sum(row[a:b]) for a, b in pairwise(boundaries)]
    low, high = band.low_tenths * sum(row), band.high_tenths * sum(row)
    return all(low <= 10 * blocks * share <= high for share in shares)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[list[int]], list[int], int]:
    layers = draw(st.integers(1, 10))
    classes = draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 9), min_size=layers, max_size=layers)
    latencies = draw(st.lists(row, min_size=classes, max_size=classes))
    cuts = draw(st.lists(st.integers(0, 20), min_size=layers - 1, max_size=layers - 1))
    return latencies, cuts, draw(st.integers(1, 6))


@settings(max_examples=300, deadline=None)
@given(chains())
def test_no_allowed_partition_moves_fewer_bytes(
    chain: tuple[list[list[int]], list[int], int],
) -> None:
    latencies, cut_bytes, max_blocks = chain
    found = partition_chain(latencies, cut_bytes, max_blocks)
    blocks, band, least = brute_force(latencies, cut_bytes, max_blocks)
    assert (found.blocks, found.band, found.cut_bytes) == (blocks, band, least)
    assert all(fits(row, found.boundaries, found.band) for row in latencies)
    assert sum(cut_bytes[cut - 1] for cut in found.boundaries[1:-1]) == found.cut_bytes


@settings(max_examples=50, deadline=None)
@given(chains(), st.integers(2, 1000))
def test_the_unit_of_latency_does_not_matter(
    chain: tuple[list[list[int]], list[int], int], factor: int
) -> None:
    latencies, cut_bytes, max_blocks = chain
    scaled = [[factor * each for each in row] for row in latencies]
    assert partition_chain(latencies, cut_bytes, max_blocks) == partition_chain(
        scaled, cut_bytes, max_blocks
    )

"""Regions of shared memory under any interleaving of taking and giving back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.errors import InvalidInput
from penstock.rpc.arena import ALIGNMENT_BYTES, Arena, Region

CAPACITY = 4096
# Take so many bytes, or give back the region at a place among those that are out.
steps = st.lists(
    st.tuples(st.just("take"), st.integers(1, CAPACITY + 100))
    | st.tuples(st.just("give"), st.integers(0, 20)),
    max_size=60,
)


def check_apart(out: list[Region], capacity: int = CAPACITY) -> None:
    ends = [0]
    for region in sorted(out, key=lambda each: each.start):
        assert ends[-1] <= region.start < region.end <= capacity
        assert region.start % ALIGNMENT_BYTES == 0
        ends.append(region.end)


@given(steps)
def test_regions_never_overlap_and_nothing_is_lost(taken: list[tuple[str, int]]) -> None:
    arena = Arena(CAPACITY)
    out: list[Region] = []
    last = 0
    for step, number in taken:
        if step == "give":
            if out:
                arena.give_back(out.pop(number % len(out)).generation)
            continue
        region = arena.take(number)
        if region is None:
            assert number > CAPACITY - arena.held_bytes or out
            continue
        assert region.end - region.start >= number
        assert region.generation > last
        last = region.generation
        out.append(region)
        check_apart(out)
        assert arena.held_bytes == sum(each.end - each.start for each in out)
    for region in out:
        arena.give_back(region.generation)
    everything = arena.take(CAPACITY)
    assert everything is not None
    assert (everything.start, everything.end) == (0, CAPACITY)


@given(steps, st.integers(0, CAPACITY))
def test_nothing_is_handed_out_beyond_a_cap(taken: list[tuple[str, int]], cap: int) -> None:
    arena = Arena(CAPACITY)
    arena.cap(cap)
    out: list[Region] = []
    for step, number in taken:
        if step == "give" and out:
            arena.give_back(out.pop(number % len(out)).generation)
        elif step == "take" and (region := arena.take(number)) is not None:
            out.append(region)
            check_apart(out, cap)


@given(steps)
def test_what_is_read_is_what_was_written(taken: list[tuple[str, int]]) -> None:
    """A writer fills regions; a reader that gives them back in any order finds them whole."""
    arena, memory = Arena(CAPACITY), bytearray(CAPACITY)
    out: list[Region] = []
    for step, number in taken:
        if step == "give" and out:
            region = out.pop(number % len(out))
            stamp = region.generation % 256
            assert set(memory[region.start : region.end]) == {stamp}
            arena.give_back(region.generation)
        elif step == "take" and (taken_region := arena.take(number)) is not None:
            size = taken_region.end - taken_region.start
            memory[taken_region.start : taken_region.end] = bytes(
                [taken_region.generation % 256] * size
            )
            out.append(taken_region)


@given(steps, st.integers(-1, 1 << 64))
def test_a_region_that_is_not_out_cannot_be_given_back(
    taken: list[tuple[str, int]], generation: int
) -> None:
    arena = Arena(CAPACITY)
    out = {region.generation for _, size in taken if (region := arena.take(size)) is not None}
    if generation in out:
        arena.give_back(generation)
    with pytest.raises(InvalidInput, match="expected a region in use"):
        arena.give_back(generation)


def test_a_region_held_for_long_blocks_only_itself() -> None:
    arena = Arena(CAPACITY)
    held = arena.take(64)
    assert held is not None
    for _ in range(1000):
        region = arena.take(CAPACITY // 2)
        assert region is not None
        assert region.start == held.end  # the lowest gap: memory that is warm
        arena.give_back(region.generation)


def test_an_arena_may_be_empty() -> None:
    assert Arena(0).take(1) is None

"""Packing against brute force, and against an independent count for instances in plenty."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import ceil, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import packing
from penstock.domain.packing import fewest_gpus, gpu_layout, maximal_patterns

FEW = st.dictionaries(st.integers(1, 8), st.integers(0, 4), max_size=5).filter(
    lambda counts: sum(counts.values()) <= 12
)
MANY = st.dictionaries(st.integers(1, 8), st.integers(0, 3000), max_size=7)


def size(counts: dict[int, int]) -> Fraction:
    return sum((Fraction(n, m) for m, n in counts.items()), Fraction(0))


def brute_force(counts: dict[int, int]) -> int:
    """Try every set of instances beside the largest one left."""
    return fewest(tuple(sorted(Counter(counts).elements())))


@cache
def fewest(left: tuple[int, ...]) -> int:
    if not left:
        return 0
    room = 1 - Fraction(1, left[0])
    return 1 + min(fewest(rest) for rest in rests(left[1:], room))


@cache
def rests(instances: tuple[int, ...], room: Fraction) -> frozenset[tuple[int, ...]]:
    """Return what may be left of instances when some of them have moved into some room."""
    if not instances:
        return frozenset([()])
    first, others = instances[0], instances[1:]
    found = {(first, *rest) for rest in rests(others, room)}
    if Fraction(1, first) <= room:
        found |= rests(others, room - Fraction(1, first))
    return frozenset(found)


@given(FEW)
def test_few_instances_take_as_many_gpus_as_brute_force_finds(counts: dict[int, int]) -> None:
    assert fewest_gpus(counts) == brute_force(counts)


@given(FEW | MANY)
def test_a_layout_holds_every_instance_once_and_overfills_nothing(counts: dict[int, int]) -> None:
    layout = gpu_layout(counts)
    assert Counter(itertools.chain(*layout)) == +Counter(counts)
    assert all(size(Counter(gpu)) <= 1 for gpu in layout)
    assert len(layout) == fewest_gpus(counts) >= ceil(size(counts))
    assert layout == gpu_layout(dict(reversed(counts.items())))


def test_nothing_takes_no_gpu() -> None:
    assert (fewest_gpus({}), gpu_layout({4: 0}), maximal_patterns([])) == (0, (), ())


@pytest.mark.parametrize(
    ("counts", "gpus"),
    [
        ({1: 3}, 3),
        ({2: 1, 3: 2, 4: 3}, 2),  # first fit takes three
        ({2: 1, 3: 2, 5: 4}, 3),  # 1.97 GPUs, but nothing fits closely enough
        ({2: 1, 3: 2, 4: 4, 5: 4}, 3),  # the quarters must not keep to themselves
        ({2: 60, 3: 90, 4: 120, 5: 152, 6: 180, 7: 215, 8: 247}, 212),  # 211.99
        ({2: 2001, 3: 3002, 4: 4001, 5: 5001, 6: 6001, 7: 7005, 8: 8004}, 7004),  # 7002.998
        ({2: 1001, 3: 3002, 4: 4000, 5: 5004}, 3502),  # 3501.97
    ],
)
def test_known_counts(counts: dict[int, int], gpus: int) -> None:
    assert fewest_gpus(counts) == gpus


def test_full_gpus_of_one_share_come_first() -> None:
    assert gpu_layout({3: 4, 2: 3}) == ((2, 2), (3, 3, 3), (2, 3))


@pytest.mark.parametrize("most", [4, 5, 6])
def test_with_plenty_of_each_share_only_remainders_matter(most: int) -> None:
    """Every remainder, with so many more instances that any mixture can be made of them."""
    denominators = range(2, most + 1)
    least = least_free_space(tuple(denominators))
    assert len(least) == prod(denominators)
    for rest, free in least.items():
        counts = {m: n + 30 * m for m, n in zip(denominators, rest, strict=True)}
        assert fewest_gpus(counts) == size(counts) + free


def test_quarters_and_larger_shares_never_waste_a_gpu() -> None:
    for rest in itertools.product(range(2), range(3), range(4)):
        counts = dict(zip((2, 3, 4), rest, strict=True))
        assert fewest_gpus(counts) == ceil(size(counts))


def least_free_space(denominators: tuple[int, ...]) -> dict[tuple[int, ...], Fraction]:
    """Return the least space free on any set of GPUs that holds these remainders of instances.

    The shortest paths, from nothing, in a graph whose nodes are the remainders; a step adds a
    full GPU, or takes an instance away from one.
    """
    steps = [
        (1 - size(dict(zip(denominators, each, strict=True))), each)
        for each in maximal_patterns(denominators)
    ] + [(Fraction(1, m), tuple(-int(m == other) for other in denominators)) for m in denominators]
    nothing = (0,) * len(denominators)
    least: dict[tuple[int, ...], Fraction] = {}
    reached = [(Fraction(0), nothing)]
    while reached:
        free, rest = heapq.heappop(reached)
        if rest in least:
            continue
        least[rest] = free
        for cost, step in steps:
            after = zip(rest, step, denominators, strict=True)
            heapq.heappush(reached, (free + cost, tuple((a + b) % m for a, b, m in after)))
    return least


def test_when_too_many_contents_would_have_to_be_tried_first_fit_has_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "_MOST_CONTENTS", 0)
    assert gpu_layout({2: 1, 3: 2, 4: 3}) == ((2, 3), (3, 4, 4), (4,))


def brute_force_patterns(denominators: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for content in itertools.product(*(range(m + 1) for m in denominators)):
        free = 1 - sum(Fraction(n, m) for n, m in zip(content, denominators, strict=True))
        if 0 <= free < min(Fraction(1, m) for m in denominators):
            yield content


@pytest.mark.parametrize("denominators", [(1,), (3,), (4, 2), (1, 2, 3, 4), (5, 3, 2), (2, 3, 7)])
def test_maximal_patterns_are_all_that_leave_no_room(denominators: tuple[int, ...]) -> None:
    found = maximal_patterns(denominators)
    assert sorted(found) == sorted(brute_force_patterns(denominators))


def test_patterns_of_shares_down_to_an_eighth() -> None:
    found = maximal_patterns(range(1, 9))
    assert len(found) == len(set(found)) == 199
    assert found[0] == (1, 0, 0, 0, 0, 0, 0, 0)

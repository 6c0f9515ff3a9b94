"""Shares as groups of multiprocessors: disjoint, never more than there are, rounded down."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.shares.base import ShareUnavailable
from penstock.shares.layout import Allotment, SmSplit, groups_for, guide, split_of

splits = st.builds(
    split_of,
    sms=st.integers(16, 200),
    minimum=st.integers(0, 8),
    alignment=st.sampled_from([0, 1, 2, 4, 8]),
)


@pytest.mark.parametrize(
    ("sms", "capability", "group_sms", "groups", "halves", "thirds"),
    [
        (132, 9, 8, 16, 64, 40),  # H100, H200
        (148, 10, 8, 18, 72, 48),  # newer than the table
        (108, 8, 4, 27, 52, 36),  # A100
        (58, 8, 4, 14, 28, 16),  # L4
        (80, 7, 2, 40, 40, 26),  # V100
        (40, 7, 2, 20, 20, 12),  # T4
        (20, 6, 1, 20, 10, 6),  # P4
    ],
)
def test_devices_that_people_have(
    sms: int, capability: int, group_sms: int, groups: int, halves: int, thirds: int
) -> None:
    split = split_of(sms, *guide(capability))
    assert split == SmSplit(sms=sms, group_sms=group_sms, groups=groups)
    assert groups_for(split, Fraction(1, 2)) * group_sms == halves
    assert groups_for(split, Fraction(1, 3)) * group_sms == thirds


def test_a_group_is_a_multiple_of_the_alignment() -> None:
    assert split_of(100, 3, 2).group_sms == 4
    assert split_of(100, 0, 0).group_sms == 1
    assert guide(5) == guide(6)


@given(split=splits, parts=st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_shares_that_sum_to_one_fit_and_are_disjoint(split: SmSplit, parts: list[int]) -> None:
    allotment, taken, left = Allotment(split), list[tuple[int, ...]](), Fraction(1)
    for number, part in enumerate(parts):
        share = Fraction(1, part)
        if share > left:
            continue
        left -= share
        try:
            groups = allotment.take(str(number), share)
        except ShareUnavailable:
            assert math.floor(split.groups * share) == 0
            continue
        exact = split.groups * share
        assert exact - 1 < len(groups) <= exact
        taken.append(groups)
    owned = [each for groups in taken for each in groups]
    assert len(owned) == len(set(owned))
    assert set(owned) <= set(range(split.groups))
    assert len(owned) * split.group_sms <= split.sms


def test_a_share_smaller_than_a_group_is_told() -> None:
    with pytest.raises(ShareUnavailable, match=r"1/20 is less than .* 8 of its 132"):
        Allotment(split_of(132, 8, 8)).take("a", Fraction(1, 20))


def test_groups_come_back() -> None:
    allotment = Allotment(split_of(132, 8, 8))
    half = Fraction(1, 2)
    assert allotment.take("a", half) == tuple(range(8))
    assert allotment.take("a", half) == tuple(range(8))  # a restart keeps its own
    assert allotment.take("b", half) == tuple(range(8, 16))
    with pytest.raises(ShareUnavailable, match="0 of 16 are free"):
        allotment.take("c", half)
    allotment.give_back("a")
    allotment.give_back("nobody")
    assert allotment.take("c", half) == tuple(range(8))
    allotment.clear()
    assert allotment.take("d", Fraction(1)) == tuple(range(16))

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from penstock.domain.ids import RequestId
from penstock.domain.requests import Slice
from penstock.scheduling.parts import Feed, Part, cut, next_parts, slices_of


def test_a_batch_is_split_and_gathered() -> None:
    cuts = cut(4, (4, 2, 4))
    assert cuts.parts == (Part(0, 0, 4), Part(1, 0, 2), Part(1, 2, 2), Part(2, 0, 4))
    assert cuts.feeds == ((), (Feed(0, 2),), (Feed(0, 2),), (Feed(1, 2), Feed(2, 2)))


def test_the_last_part_is_as_small_as_it_has_to_be() -> None:
    assert cut(5, (4, 2)).parts == (
        *(Part(0, 0, 4), Part(0, 4, 1)),
        *(Part(1, 0, 2), Part(1, 2, 2), Part(1, 4, 1)),
    )


def test_parts_that_do_not_lie_on_each_other_share_rows() -> None:
    cuts = cut(6, (2, 3))
    assert cuts.feeds[3:] == ((Feed(0, 2), Feed(1, 1)), (Feed(1, 1), Feed(2, 2)))
    assert next_parts(cuts.parts, 1) == [(3, Part(1, 2, 1)), (4, Part(1, 3, 1))]
    assert next_parts(cuts.parts, 3) == []


def test_rows_are_slices_of_requests() -> None:
    slices = (Slice(RequestId(7), 5, 2), Slice(RequestId(8), 0, 3))
    assert slices_of(slices, 0, 5) == slices
    assert slices_of(slices, 1, 2) == (Slice(RequestId(7), 6, 1), Slice(RequestId(8), 0, 1))
    assert slices_of(slices, 3, 2) == (Slice(RequestId(8), 1, 2),)


@given(size=st.integers(1, 40), batches=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_every_stage_gets_every_row_once_from_whoever_has_it(size: int, batches: list[int]) -> None:
    cuts = cut(size, batches)
    for stage, batch in enumerate(batches):
        mine = [each for each in cuts.parts if each.stage == stage]
        rows = [row for each in mine for row in range(each.first, each.end)]
        assert rows == list(range(size))
        assert all(1 <= each.count <= batch for each in mine)
    for place, part in enumerate(cuts.parts):
        assert sum(each.count for each in cuts.feeds[place]) == (part.count if part.stage else 0)
        for there, rows_there in next_parts(cuts.parts, place):
            assert Feed(place, rows_there.count) in cuts.feeds[there]

"""Offers for batches that some stage takes in parts, worked by hand.

A stage takes 10, 12, 14, 16 ms for 1 to 4 samples.
"""

from __future__ import annotations

import pytest

from penstock.scheduling.effects import Hop, PartHop
from penstock.scheduling.instances import LivePipeline
from penstock.scheduling.offers import Offer, book_offer, make_offer, shorten
from tests.support.uneven import an_uneven_pipeline


def times(offer: Offer) -> list[tuple[str, int, int]]:
    return [(hop.instance.id, hop.start_us, hop.end_us) for hop in offer.hops]


def alone(offer: Offer, now_us: int = 0) -> bool:
    """Whether nothing that is booked keeps the batch waiting."""
    work_us = offer.completion_us - now_us
    return (offer.queueing_us, offer.idle_us, offer.work_us) == (0, 0, work_us)


def test_a_batch_is_split_over_idle_instances() -> None:
    offer = make_offer(an_uneven_pipeline((4, 2), (1, 2)), 4, now_us=1_000, hop_us=500)
    assert times(offer) == [
        ("p0/0", 1_500, 17_500),
        ("p1/0", 18_000, 30_000),
        ("p1/1", 18_000, 30_000),
    ]
    assert offer.completion_us == 30_500
    assert alone(offer, 1_000)


def test_on_a_single_instance_parts_run_one_after_the_other() -> None:
    offer = make_offer(an_uneven_pipeline((4, 2), (1, 1)), 4, 0, 0)
    assert times(offer) == [
        ("p0/0", 0, 16_000),
        ("p1/0", 16_000, 28_000),
        ("p1/0", 28_000, 40_000),
    ]
    assert alone(offer)  # it waits for itself


def test_the_parts_of_a_split_leave_through_one_card_in_turn() -> None:
    offer = make_offer(an_uneven_pipeline((4, 2), (1, 2), transfer_us=1_000), 4, 0, 0)
    assert times(offer)[1:] == [("p1/0", 18_000, 30_000), ("p1/1", 20_000, 32_000)]
    assert alone(offer)


def test_a_part_starts_when_all_its_rows_have_come() -> None:
    offer = make_offer(an_uneven_pipeline((2, 4), (2, 1), transfer_us=1_000), 4, 0, 500)
    assert times(offer) == [
        ("p0/0", 500, 12_500),
        ("p0/1", 500, 12_500),
        ("p1/0", 17_000, 33_000),  # 2 ms on its card for each of two senders
    ]
    assert offer.completion_us == 33_500
    assert alone(offer)


def test_rows_that_are_there_already_cross_no_network() -> None:
    offer = make_offer(an_uneven_pipeline((2, 4), (2, 1), transfer_us=1_000, servers=2), 4, 0, 0)
    # Server s0 has p0/0 and p1/0: only the rows of p0/1 travel.
    assert times(offer)[2] == ("p1/0", 14_000, 30_000)


def test_a_batch_may_be_split_and_gathered_again() -> None:
    offer = make_offer(an_uneven_pipeline((4, 2, 4), (1, 2, 1)), 4, 0, 0)
    assert [each[1:] for each in times(offer)] == [
        (0, 16_000),
        (16_000, 28_000),
        (16_000, 28_000),
        (28_000, 44_000),
    ]


def test_an_odd_batch_has_smaller_parts_at_the_end() -> None:
    offer = make_offer(an_uneven_pipeline((6, 4, 2), (1, 1, 1)), 5, 0, 0)
    assert times(offer) == [
        ("p0/0", 0, 18_000),
        ("p1/0", 18_000, 34_000),
        ("p1/0", 34_000, 44_000),
        ("p2/0", 34_000, 46_000),
        ("p2/0", 46_000, 58_000),
        ("p2/0", 58_000, 68_000),
    ]


def test_what_every_stage_takes_at_once_is_not_cut() -> None:
    pipeline = an_uneven_pipeline((4, 2), (1, 2))
    route = book_offer(make_offer(pipeline, 2, 0, 0), 0)
    assert [type(hop) for hop in route] == [Hop, Hop]


def test_a_busy_instance_is_passed_over_only_if_another_is_sooner() -> None:
    pipeline = an_uneven_pipeline((4, 2), (1, 2))
    book_offer(make_offer(pipeline, 2, 0, 0), 0)  # p1/0 from 12 to 24 ms
    offer = make_offer(pipeline, 4, 0, 0)
    assert times(offer) == [
        ("p0/0", 12_000, 28_000),
        ("p1/1", 28_000, 40_000),
        ("p1/0", 28_000, 40_000),
    ]
    assert (offer.idle_us, offer.queueing_us, offer.work_us) == (12_000, 12_000, 28_000)


def test_asking_changes_nothing() -> None:
    pipeline = an_uneven_pipeline((4, 2, 4), (2, 2, 2), transfer_us=700, servers=3)
    book_offer(make_offer(pipeline, 3, 0, 100), 0)
    before = state(pipeline)
    first = make_offer(pipeline, 4, 50, 100)
    assert make_offer(pipeline, 4, 50, 100) == first
    assert state(pipeline) == before


def state(pipeline: LivePipeline) -> list[object]:
    return [
        (each.id, each.timeline.bookings(), each.card.up.bookings(), each.card.down.bookings())
        for pool in pipeline.pools
        for each in pool.instances.values()
    ]


def test_booking_takes_what_was_offered() -> None:
    pipeline = an_uneven_pipeline((4, 2), (1, 1), transfer_us=1_000)
    offer = make_offer(pipeline, 3, 0, 0)
    route = book_offer(offer, 0)
    assert route[1:] == (
        PartHop(
            instance=offer.hops[1].instance.id,
            start_us=16_000,
            end_us=28_000,
            sequence=0,
            stage=1,
            first=0,
            count=2,
        ),
        PartHop(
            instance=offer.hops[1].instance.id,
            start_us=28_000,
            end_us=38_000,
            sequence=1,
            stage=1,
            first=2,
            count=1,
        ),
    )
    sender, receiver = (hop.instance for hop in offer.hops[:2])
    assert len(sender.card.up) == 2
    assert sender.card.up.bookings() == receiver.card.down.bookings()
    assert receiver.timeline.bookings() == tuple(hop.booking for hop in offer.hops[1:])


def test_a_batch_that_turns_out_smaller_keeps_its_times() -> None:
    offer = make_offer(an_uneven_pipeline((2, 4), (2, 1), transfer_us=1_000), 4, 0, 0)
    less = shorten(offer, 1)
    assert times(less) == [times(offer)[0], times(offer)[2]]
    route = book_offer(less, 0)
    assert [(hop.stage, hop.first, hop.count) for hop in route if isinstance(hop, PartHop)] == [
        (0, 0, 1),
        (1, 0, 1),
    ]
    assert [len(hop.instance.card.down.bookings()) for hop in less.hops] == [0, 1]
    assert shorten(offer, 4) is offer


def test_the_rate_counts_the_parts_of_each_stage() -> None:
    pipeline = an_uneven_pipeline((4, 2), (1, 1))
    assert (pipeline.batch, pipeline.uncut) == (4, 2)
    # The second stage takes 24 ms for 4 and 22 ms for 3; for 2 both take 12 ms.
    assert pipeline.relative_rate(3) == pytest.approx((3 / 22) / (4 / 24))
    assert pipeline.relative_rate(2) == pytest.approx((2 / 12) / (4 / 24))

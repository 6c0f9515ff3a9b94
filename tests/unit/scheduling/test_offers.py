from __future__ import annotations

import pytest

from penstock.domain.errors import InvariantViolation
from penstock.domain.ids import InstanceId, ServerId
from penstock.scheduling.instances import Instance, LivePipeline, NetworkCard, live_pipelines
from penstock.scheduling.offers import Offer, OfferedHop, book_offer, make_offer
from tests.support.builders import MODEL, a_model_plan, a_pool


def a_pipeline(*counts: int, transfer_us: int = 0, one_server: bool = False) -> LivePipeline:
    pools = [
        a_pool(f"p{stage}", position=stage, blocks=(stage, stage + 1), instances=count)
        for stage, count in enumerate(counts)
    ]
    live, pipelines = live_pipelines(a_model_plan(pools, transfer_us=transfer_us))
    shared = NetworkCard()
    for pool in live.values():
        for number in range(pool.plan.instances):
            name = InstanceId(f"{pool.plan.id}/{number}")
            server = ServerId("s" if one_server else name)
            card = shared if one_server else NetworkCard()
            pool.join(Instance(name, MODEL, pool, server, card))
    return pipelines[0]


def transfer(offer: Offer) -> tuple[int, int] | None:
    """Return the booked transfer into the second stage."""
    hop = offer.hops[1]
    assert isinstance(hop, OfferedHop)
    return None if hop.transfer is None else (hop.transfer.start_us, hop.transfer.end_us)


def test_an_idle_route_queues_for_nothing() -> None:
    offer = make_offer(a_pipeline(1, 1, transfer_us=100), 2, now_us=1_000, hop_us=50)
    # hop, compute 12 ms, transfer of two samples, hop, compute 12 ms, hop
    assert offer.completion_us == 1_000 + 50 + 12_000 + 200 + 50 + 12_000 + 50
    assert offer.queueing_us == 0
    assert offer.idle_us == 0


def test_on_one_server_nothing_crosses_the_network() -> None:
    offer = make_offer(a_pipeline(1, 1, transfer_us=100, one_server=True), 1, 0, 0)
    assert offer.completion_us == 20_000
    assert transfer(offer) is None


def test_a_booked_instance_is_waited_for_and_an_idle_one_preferred() -> None:
    pipeline = a_pipeline(2)
    first = make_offer(pipeline, 1, 0, 0)
    book_offer(first, 0)
    second = make_offer(pipeline, 1, 0, 0)
    assert second.hops[0].instance is not first.hops[0].instance
    book_offer(second, 0)
    third = make_offer(pipeline, 1, 0, 0)
    assert (third.idle_us, third.queueing_us) == (10_000, 10_000)


def test_the_network_card_is_a_resource_of_its_own() -> None:
    pipeline = a_pipeline(1, 2, transfer_us=30_000)
    book_offer(make_offer(pipeline, 1, 0, 0), 0)
    offer = make_offer(pipeline, 1, 0, 0)
    # Its first stage ends at 20 ms, but the sender's card is busy until 40 ms.
    assert transfer(offer) == (40_000, 70_000)


def test_sequences_count_the_bookings_of_each_instance() -> None:
    pipeline = a_pipeline(1, 2)
    routes = [book_offer(make_offer(pipeline, 1, 0, 0), 0) for _ in range(3)]
    assert [route[0].sequence for route in routes] == [0, 1, 2]
    assert [(route[1].instance, route[1].sequence) for route in routes] == [
        ("p1/0", 0),
        ("p1/1", 0),  # of instances that could start at once, the one idle for longest
        ("p1/0", 1),
    ]


def test_an_offer_cannot_be_booked_twice() -> None:
    offer = make_offer(a_pipeline(1), 1, 0, 0)
    book_offer(offer, 0)
    with pytest.raises(InvariantViolation):
        book_offer(offer, 0)


def test_an_instance_that_left_is_not_offered_when_one_of_its_name_joins() -> None:
    pipeline = a_pipeline(1)
    (pool,) = pipeline.pools
    (gone,) = pool.instances.values()
    pool.leave(gone)
    again = Instance(gone.id, MODEL, pool, gone.server, gone.card)
    pool.join(again)
    book_offer(make_offer(pipeline, 1, 0, 0), 0)
    offer = make_offer(pipeline, 1, 0, 0)
    assert offer.hops[0].instance is again
    assert offer.idle_us == 10_000


def test_a_late_word_does_not_bring_back_an_instance_that_left() -> None:
    pipeline = a_pipeline(2)
    offer = make_offer(pipeline, 1, 0, 0)
    book_offer(offer, 0)
    (hop,) = offer.hops
    pipeline.pools[0].leave(hop.instance)
    hop.instance.release(hop.booking)
    assert make_offer(pipeline, 1, 0, 0).hops[0].instance is not hop.instance

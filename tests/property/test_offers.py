"""The search for the instance that is done first finds what a look at all of them finds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.ids import InstanceId, ServerId
from penstock.domain.units import Micros
from penstock.scheduling.instances import Instance, LivePipeline, NetworkCard, live_pipelines
from penstock.scheduling.lanes import gap_in_both
from penstock.scheduling.offers import Offer, OfferedHop, book_offer, make_offer
from penstock.scheduling.part_offers import OfferedPart
from tests.support.builders import MODEL, a_model_plan, a_pool

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["book", "finish", "release", "lose", "wait"]),
        st.integers(0, 40_000),
        st.integers(0, 63),
    ),
    max_size=60,
)


def fleet(sizes: tuple[int, int], servers: int, transfer_us: Micros) -> LivePipeline:
    pools = [
        a_pool(f"p{stage}", position=stage, blocks=(stage, stage + 1), instances=size)
        for stage, size in enumerate(sizes)
    ]
    live, pipelines = live_pipelines(a_model_plan(pools, transfer_us=transfer_us))
    cards = [NetworkCard() for _ in range(servers)]
    for pool in live.values():
        for number in range(pool.plan.instances):
            name, at = InstanceId(f"{pool.plan.id}/{number}"), number % servers
            pool.join(Instance(name, MODEL, pool, ServerId(f"s{at}"), cards[at]))
    return pipelines[0]


def next_wire_us(offer: Offer) -> Micros:
    return offer.size * offer.pipeline.plan.transfers[0].us_per_sample


def earliest_done(offer: Offer, stage: int, now_us: Micros) -> Micros:
    """Return when any instance could be done with this stage of an offer, and send it on."""
    pool = offer.pipeline.pools[stage]
    at_us = offer.hops[stage - 1].end_us if stage else now_us
    sender = offer.hops[stage - 1].instance if stage else None
    wire_us = offer.size * offer.pipeline.plan.transfers[stage - 1].us_per_sample if stage else 0
    compute_us = pool.latency_us(offer.size)
    done = []
    for each in pool.instances.values():
        there_us = at_us
        if sender is not None and wire_us and each.server != sender.server:
            there_us = gap_in_both(sender.card.up, each.card.down, at_us, wire_us) + wire_us
        done_us = max(there_us, each.timeline.free_at(now_us)) + compute_us
        done.append(done_us if stage else each.card.up.gap(done_us, next_wire_us(offer)))
    return min(done)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    servers=st.integers(1, 4),
    transfer_us=st.sampled_from([0, 700, 9_000]),
    steps=STEPS,
)
def test_every_stage_is_done_as_early_as_any_instance_allows(
    sizes: tuple[int, int], servers: int, transfer_us: Micros, steps: list[tuple[str, int, int]]
) -> None:
    pipeline = fleet(sizes, servers, transfer_us)
    now_us = 0
    flying: list[OfferedHop | OfferedPart] = []
    for what, by_us, pick in steps:
        if what == "wait":
            now_us += by_us
        elif what == "book":
            offer = make_offer(pipeline, 1 + pick % pipeline.batch, now_us, 0)
            for stage, hop in enumerate(offer.hops):
                done_us = hop.end_us
                if not stage:
                    done_us = hop.instance.card.up.gap(done_us, next_wire_us(offer))
                assert done_us == earliest_done(offer, stage, now_us)
            book_offer(offer, now_us)
            flying += offer.hops
        elif what == "lose":
            pool = pipeline.pools[pick % 2]
            if len(pool.instances) > 1:
                pool.leave(list(pool.instances.values())[pick % len(pool.instances)])
        elif flying:
            hop = flying.pop(pick % len(flying))
            if what == "finish":
                hop.instance.finish(hop.booking, now_us)
            else:
                hop.instance.release(hop.booking)

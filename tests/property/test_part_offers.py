"""Every part of a batch is done as early as any instance allows, after what the others take."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.ids import ServerId
from penstock.domain.units import Micros
from penstock.scheduling.bookings import Booking
from penstock.scheduling.instances import Instance, LivePipeline, NetworkCard
from penstock.scheduling.lanes import gap_in_both
from penstock.scheduling.offers import OfferedHop, book_offer, make_offer, parts_of
from penstock.scheduling.part_offers import OfferedPart
from tests.support.uneven import an_uneven_pipeline

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["book", "book", "finish", "release", "wait"]),
        st.integers(0, 30_000),
        st.integers(0, 63),
    ),
    max_size=40,
)


class Table:
    """When everything is free, kept in the plainest way; drafts the parts of one batch again."""

    def __init__(self, pipeline: LivePipeline, now_us: Micros, hop_us: Micros) -> None:
        self.pipeline, self.now_us, self.hop_us = pipeline, now_us, hop_us
        everyone = [each for pool in pipeline.pools for each in pool.instances.values()]
        self.free_us = {each.id: each.timeline.free_at(now_us) for each in everyone}
        self.cards = {each.server: deepcopy(each.card) for each in everyone}

    def try_on(
        self, hop: OfferedPart, before: Sequence[OfferedPart], instance: Instance
    ) -> tuple[Micros, Micros, dict[ServerId, NetworkCard]]:
        """Return when an instance would start a part and could be done with it, and the cards."""
        cards = deepcopy(self.cards)
        ready_us = self.now_us
        part, pools = hop.part, self.pipeline.pools
        wires_us = [each.us_per_sample for each in self.pipeline.plan.transfers]
        for sender in sorted(before, key=lambda each: each.end_us):
            rows = min(part.end, sender.part.end) - max(part.first, sender.part.first)
            if sender.part.stage + 1 != part.stage or rows <= 0:
                continue
            wire_us = rows * wires_us[part.stage - 1]
            there_us = sender.end_us
            if wire_us and sender.instance.server != instance.server:
                lanes = cards[sender.instance.server].up, cards[instance.server].down
                from_us = gap_in_both(*lanes, there_us, wire_us)
                there_us = from_us + wire_us
                for lane in lanes:
                    lane.book(Booking(from_us, there_us))
            ready_us = max(ready_us, there_us)
        start_us = max(ready_us + self.hop_us, self.free_us[instance.id])
        done_us = start_us + pools[part.stage].latency_us(part.count)
        if part.stage + 1 < len(pools) and wires_us[part.stage]:
            up = self.cards[instance.server].up
            done_us = up.gap(done_us, part.count * wires_us[part.stage])
        return start_us, done_us, cards


@settings(max_examples=150, deadline=None)
@given(
    batches=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    counts=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    servers=st.integers(1, 4),
    transfer_us=st.sampled_from([0, 700, 9_000]),
    hop_us=st.sampled_from([0, 300]),
    steps=STEPS,
)
def test_every_part_is_done_as_early_as_any_instance_allows(
    batches: list[int],
    counts: list[int],
    servers: int,
    transfer_us: Micros,
    hop_us: Micros,
    steps: list[tuple[str, int, int]],
) -> None:
    pipeline = an_uneven_pipeline(
        batches, counts[: len(batches)], transfer_us=transfer_us, servers=servers
    )
    now_us = 0
    flying: list[OfferedHop | OfferedPart] = []
    for what, by_us, pick in steps:
        if what == "wait":
            now_us += by_us
        elif what == "book":
            offer = make_offer(pipeline, 1 + pick % pipeline.batch, now_us, hop_us)
            hops = parts_of(offer)
            check(Table(pipeline, now_us, hop_us), hops)
            assert bool(hops) == (offer.size > min(batches))
            assert 0 <= offer.queueing_us == offer.completion_us - now_us - offer.work_us
            assert offer.idle_us >= 0
            book_offer(offer, now_us)
            flying += offer.hops
        elif flying:
            hop = flying.pop(pick % len(flying))
            if what == "finish":
                hop.instance.finish(hop.booking, now_us)
            else:
                hop.instance.release(hop.booking)


def check(table: Table, hops: Sequence[OfferedPart]) -> None:
    for place, hop in enumerate(hops):
        pool = table.pipeline.pools[hop.part.stage]
        tried = [table.try_on(hop, hops[:place], each) for each in pool.instances.values()]
        start_us, done_us, cards = table.try_on(hop, hops[:place], hop.instance)
        assert hop.start_us == start_us
        assert done_us == min(done for _, done, _ in tried)
        table.cards = cards
        table.free_us[hop.instance.id] = hop.end_us

"""Routing policies that count: round robin, shortest queue, two choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from penstock.domain.ids import PoolId
from penstock.domain.plan import Plan
from penstock.policies.batching.fixed import FixedPolicy
from penstock.policies.batching.nexus import NexusPolicy
from penstock.policies.draws import distinct
from penstock.policies.routing.power_of_two import PowerOfTwo
from penstock.policies.routing.queue_length import queue_length
from penstock.policies.routing.round_robin import RoundRobin
from penstock.policies.routing.shortest_queue import JoinShortestQueue
from penstock.scheduling.offers import book_offer, make_offer
from penstock.scheduling.ports import RoutingPolicy
from tests.support.builders import a_model_plan, a_plan, a_pool
from tests.support.driving import Drive
from tests.support.uneven import an_uneven_pipeline


def lines(*latencies_us: int, batch: int = 1, rates: tuple[float, ...] = ()) -> Plan:
    """One pipeline of one instance for each latency, the same for any batch."""
    pools = [
        a_pool(f"p{number}", latencies_us=(latency_us,) * batch)
        for number, latency_us in enumerate(latencies_us)
    ]
    model = a_model_plan(*([pool] for pool in pools))
    if rates:
        rated = zip(model.pipelines, rates, strict=True)
        pipelines = tuple(replace(each, throughput_rps=rate) for each, rate in rated)
        model = replace(model, pipelines=pipelines)
    return a_plan(model)


def spaced(plan: Plan, routing: Callable[[], RoutingPolicy], requests: int) -> Drive:
    """Let requests come one by one, each when all instances are idle."""
    drive = Drive(plan, NexusPolicy, routing)
    for number in range(requests):
        drive.arrive(number * 200_000)
    return drive


def test_round_robin_gives_each_pipeline_its_turn() -> None:
    drive = spaced(lines(10_000, 20_000, 30_000), RoundRobin, 7)
    assert drive.pipelines == ["m.0", "m.1", "m.2", "m.0", "m.1", "m.2", "m.0"]


def test_a_turn_passes_with_a_batch_not_with_a_look() -> None:
    # Two samples make a batch; every arrival makes the policy look at the offers.
    drive = Drive(lines(1_000, 1_000, batch=2), FixedPolicy, RoundRobin)
    for at_us in range(0, 60_000, 2_500):
        drive.arrive(at_us)
    assert drive.sizes == [2] * 12
    assert drive.pipelines == ["m.0", "m.1"] * 6


def test_round_robin_waits_for_the_one_whose_turn_it_is() -> None:
    drive = Drive(lines(10_000, 50_000), FixedPolicy, RoundRobin)
    drive.arrive(0, 4, slo_us=1_000_000)
    drive.until(1_000_000)
    assert drive.launches == [(0, 1), (0, 1), (10_000, 1), (50_000, 1)]
    assert drive.pipelines == ["m.0", "m.1", "m.0", "m.1"]


def test_weighted_round_robin_interleaves_by_planned_throughput() -> None:
    plan = lines(1_000, 1_000, 1_000, rates=(50.0, 10.0, 10.0))
    drive = spaced(plan, lambda: RoundRobin(weighted=True), 14)
    # The example of nginx's smooth weighted round robin: weights 5, 1, 1 give a a b a c a a.
    assert drive.pipelines == ["m.0", "m.0", "m.1", "m.0", "m.2", "m.0", "m.0"] * 2


def test_the_shortest_queue_counts_batches_and_not_their_time() -> None:
    drive = Drive(lines(10_000, 50_000), NexusPolicy, JoinShortestQueue)
    drive.arrive(0)  # both are idle: the plan's order
    drive.arrive(1_000)  # one against none: the slow one
    drive.arrive(12_000)
    drive.arrive(13_000)  # one each: the plan's order, although both are busy
    drive.until(300_000)
    assert list(zip(drive.launches, drive.pipelines, strict=True)) == [
        ((0, 1), "m.0"),
        ((1_000, 1), "m.1"),
        ((12_000, 1), "m.0"),
        ((22_000, 1), "m.0"),
    ]


def test_of_parts_that_run_side_by_side_the_longest_queue_counts() -> None:
    pipeline = an_uneven_pipeline((4, 2), (1, 2))
    book_offer(make_offer(pipeline, 2, 0, 0), 0)  # on the first of the second stage
    book_offer(make_offer(pipeline, 2, 0, 0), 0)  # on the other
    book_offer(make_offer(pipeline, 2, 0, 0), 0)  # on the first again
    assert queue_length(make_offer(pipeline, 4, 0, 0)) == 3 + 2


def test_two_choices_of_two_join_the_shortest_queue() -> None:
    drive = Drive(lines(50_000, 50_000), NexusPolicy, PowerOfTwo)
    for at_us in (0, 1_000, 60_000, 61_000):
        drive.arrive(at_us)
    assert sorted(drive.pipelines[:2]) == sorted(drive.pipelines[2:]) == ["m.0", "m.1"]


def test_two_choices_draw_two_different_pipelines_for_each_batch() -> None:
    drive = spaced(lines(*(1_000,) * 4), PowerOfTwo, 400)
    counts = Counter(drive.pipelines)
    assert set(counts) == {"m.0", "m.1", "m.2", "m.3"}
    assert all(70 < each < 130 for each in counts.values())
    assert drive.pipelines == spaced(lines(*(1_000,) * 4), PowerOfTwo, 400).pipelines
    other = spaced(lines(*(1_000,) * 4), lambda: PowerOfTwo(seed=1), 400)
    assert drive.pipelines != other.pipelines


def test_a_draw_holds_until_its_batch_is_launched() -> None:
    drive = Drive(lines(*(1_000,) * 4, batch=3), FixedPolicy, PowerOfTwo)
    for at_us in range(0, 36_000, 4_000):
        drive.arrive(at_us, slo_us=1_000_000)
        drive.arrive(at_us + 1_000, slo_us=1_000_000)
        drive.arrive(at_us + 2_000, slo_us=1_000_000)
    # All are idle when a batch is full: it goes to the first one drawn in its turn, although the
    # offers were looked at three times.
    drawn = [distinct(0, turn, 2, 4)[0] for turn in range(9)]
    assert drive.sizes == [3] * 9
    assert drive.pipelines == [f"m.{each}" for each in drawn]


def test_two_choices_keep_the_longest_queue_far_below_one_choice() -> None:
    # Mitzenmacher: n balls in n bins; the fullest holds about ln n / ln ln n with one choice
    # (6 or 7 for n = 1000) and ln ln n / ln 2 with two (3 or 4).
    fullest = []
    for choices in (1, 2):
        bins = [0] * 1_000
        for turn in range(1_000):
            drawn = distinct(7, turn, choices, len(bins))
            bins[min(drawn, key=bins.__getitem__)] += 1
        fullest.append(max(bins))
    assert fullest[0] in (5, 6, 7)
    assert fullest[1] in (3, 4)


def test_draws_are_different_numbers_in_every_order() -> None:
    draws = Counter(tuple(distinct(3, turn, 2, 3)) for turn in range(6_000))
    assert len(draws) == 6
    assert all(850 < each < 1_150 for each in draws.values())
    assert sorted(distinct(0, 0, 5, 5)) == [0, 1, 2, 3, 4]


def test_the_offers_that_were_not_drawn_follow() -> None:
    slow, fast = lines(50_000), lines(10_000)
    pools = [replace(slow.models[0].pools[0], id=PoolId(f"s{n}")) for n in range(3)]
    plan = a_plan(a_model_plan(*([pool] for pool in pools), [fast.models[0].pools[0]]))
    drive = Drive(plan, NexusPolicy, lambda: PowerOfTwo(choices=1))
    for number in range(8):
        drive.arrive(number * 200_000, slo_us=20_000)
    drive.until(2_000_000)
    assert drive.pipelines == ["m.3"] * 8  # no other saves the head, drawn or not

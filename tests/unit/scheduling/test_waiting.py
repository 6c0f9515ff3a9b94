from __future__ import annotations

from penstock.domain.ids import RequestId
from penstock.domain.requests import Slice
from penstock.scheduling.waiting import WaitingQueue
from tests.support.builders import a_request


def test_the_earliest_deadline_comes_first_then_arrival_then_id() -> None:
    queue = WaitingQueue()
    for request in (
        a_request(3, slo_us=50),
        a_request(2, arrival_us=10, slo_us=20),
        a_request(1, arrival_us=0, slo_us=30),
        a_request(0, slo_us=90),
    ):
        queue.push(request, 0, 1)
    assert [each.request for each in queue.take(4)] == [1, 2, 3, 0]


def test_priority_goes_before_the_deadline_and_zero_goes_last() -> None:
    queue = WaitingQueue()
    queue.push(a_request(0, slo_us=10), 0, 1)
    queue.push(a_request(1, slo_us=99, priority=2), 0, 1)
    queue.push(a_request(2, slo_us=99, priority=1), 0, 1)
    assert [each.request for each in queue.take(9)] == [2, 1, 0]


def test_a_request_is_cut_where_the_batch_is_full() -> None:
    queue = WaitingQueue()
    queue.push(a_request(0, samples=5), 0, 5)
    queue.push(a_request(1, slo_us=200_000), 0, 1)
    assert queue.take(2) == [Slice(RequestId(0), 0, 2)]
    assert queue.samples == 4
    assert queue.take(9) == [Slice(RequestId(0), 2, 3), Slice(RequestId(1), 0, 1)]
    assert queue.head() is None
    assert len(queue) == 0


def test_it_can_be_read_in_order_and_is_left_as_it_was() -> None:
    queue = WaitingQueue()
    for number in (5, 2, 8, 0, 7, 3, 6, 1, 4, 9):
        queue.push(a_request(number, slo_us=100 + number, samples=2), 0, 2)
    queue.take(3)
    queue.remove(RequestId(4))
    read = [(each.request.id, each.samples) for each in queue.in_order()]
    assert read == [(1, 1), (2, 2), (3, 2), (5, 2), (6, 2), (7, 2), (8, 2), (9, 2)]
    assert next(iter(queue.in_order())).request.id == 1
    assert [each.request for each in queue.take(99)] == [each for each, _ in read]
    assert list(queue.in_order()) == []


def test_a_removed_request_leaves_no_samples_behind() -> None:
    queue = WaitingQueue()
    queue.push(a_request(0, samples=3), 0, 3)
    queue.push(a_request(1, slo_us=200_000), 0, 1)
    queue.remove(RequestId(0))
    queue.remove(RequestId(7))
    assert queue.samples == 1
    assert queue.take(9) == [Slice(RequestId(1), 0, 1)]

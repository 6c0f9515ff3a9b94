"""What the comparison policies ask of an outlook in the same way.

Their sources let a batch form while the device it will run on is busy. A batch here is bound to a
whole route, so it stays open until its first instance is free and it would flow through the later
stages nearly without queueing.
"""

from __future__ import annotations

from penstock.domain.requests import DropReason
from penstock.domain.units import Micros, ms_from_micros
from penstock.scheduling.offers import Offer
from penstock.scheduling.ports import Drop, Outlook, Wait

# A batch may queue at later stages for this part of its own work: a device that batches for itself
# would have work waiting, and this keeps one fed although durations vary.
LEAD = 0.15


def window(outlook: Outlook, planned: Offer, size: int | None = None) -> Offer:
    """Return the offer for what waits, up to `size` and to the planned batch."""
    most = planned.size if size is None else min(size, planned.size)
    return outlook.resize(planned, min(most, outlook.waiting))


def first_in_time(outlook: Outlook, limit_us: Micros, size: int | None = None) -> Offer | None:
    """Return the first pipeline's window, in routing order, that is answered by `limit_us`."""
    windows = (window(outlook, planned, size) for planned in outlook.offers())
    return next((each for each in windows if each.completion_us <= limit_us), None)


def wait_or_drop(outlook: Outlook, size: int | None = None) -> Wait | Drop:
    """Give up a head that no pipeline can answer in time, once the first of them is free.

    Not before: a batch that ends sooner than predicted may save it yet.
    """
    best = window(outlook, outlook.offers()[0], size)
    late_us = best.completion_us - outlook.head.deadline_us
    detail = f"its batch would be answered {ms_from_micros(late_us):.1f} ms too late"
    return until_free(outlook, best) or Drop(DropReason.DEADLINE, detail)


def expired(outlook: Outlook) -> Drop | None:
    """Return the drop of a head whose deadline has passed."""
    if outlook.head.deadline_us > outlook.now_us:
        return None
    return Drop(DropReason.DEADLINE, "the deadline passed in the queue")


def until_free(outlook: Outlook, offer: Offer) -> Wait | None:
    """Return the wait until the offer's route is free, at most to the head's deadline."""
    busy_us = max(offer.idle_us, offer.queueing_us - int(LEAD * offer.work_us))
    if busy_us <= 0:
        return None
    return Wait(min(outlook.now_us + busy_us, outlook.head.deadline_us))


def until_due(outlook: Outlook, size: int, delay_us: Micros) -> Wait | None:
    """Return the wait until the oldest sample of a batch of `size` has waited for `delay_us`."""
    if delay_us == 0:
        return None
    due_us = oldest_arrival_us(outlook, size) + delay_us
    return Wait(min(due_us, outlook.head.deadline_us)) if due_us > outlook.now_us else None


def oldest_arrival_us(outlook: Outlook, size: int) -> Micros:
    """Return the first arrival among the samples that a batch of `size` would hold."""
    oldest_us = outlook.head.arrival_us
    for each in outlook.queued():
        oldest_us = min(oldest_us, each.request.arrival_us)
        size -= each.samples
        if size <= 0:
            break
    return oldest_us

"""What must hold of a dispatcher between any two events."""

from __future__ import annotations

from itertools import pairwise

from penstock.domain.errors import InvariantViolation
from penstock.scheduling.dispatcher import Dispatcher
from penstock.scheduling.flights import Flight


def validate(dispatcher: Dispatcher) -> None:
    """Check a dispatcher's state.

    Raises:
        InvariantViolation: names the first invariant that does not hold.
    """
    _check_samples(dispatcher)
    _check_timelines(dispatcher)
    _check_flights(dispatcher)


def _check_samples(dispatcher: Dispatcher) -> None:
    """Each sample of an open request waits, flies, or is answered."""
    for request_id, each in dispatcher._requests.items():
        waiting = dispatcher._queues[each.request.model].waiting.waiting(request_id)
        flying = sum(
            piece.count
            for batch in each.batches
            for piece in dispatcher._flights[batch].slices
            if piece.request == request_id
        )
        if waiting + flying != each.unanswered or each.unanswered < 1:
            raise InvariantViolation(
                f"request {request_id}: {waiting} waiting + {flying} flying of {each.unanswered}"
            )
    for queue in dispatcher._queues.values():
        known = sum(
            queue.waiting.waiting(request_id)
            for request_id, each in dispatcher._requests.items()
            if each.request.model == queue.plan.model
        )
        if known != queue.waiting.samples:
            raise InvariantViolation(f"{queue.plan.model}: the queue holds ended requests")


def _check_timelines(dispatcher: Dispatcher) -> None:
    """Bookings do not overlap, and each belongs to a flight."""
    flights = dispatcher._flights.values()
    booked = {id(hop.booking): hop.instance for flight in flights for hop in flight.hops}
    for instance in dispatcher._instances.values():
        bookings = instance.timeline.bookings()
        for before, after in pairwise(bookings):
            if after.start_us < before.end_us:
                raise InvariantViolation(f"{instance.id}: {after} is double booked")
        for each in bookings:
            if booked.get(id(each)) is not instance:
                raise InvariantViolation(f"{instance.id}: {each} is of no batch that flies there")


def _check_flights(dispatcher: Dispatcher) -> None:
    """A flight's requests know it, its instances are ready ones, and its parts are all of it."""
    for batch, flight in dispatcher._flights.items():
        _check_parts(flight)
        for piece in flight.slices:
            open_request = dispatcher._requests.get(piece.request)
            if open_request is not None and batch not in open_request.batches:
                raise InvariantViolation(f"request {piece.request} forgot batch {batch}")
        for instance in flight.pending_instances():
            if instance not in dispatcher._instances:
                raise InvariantViolation(f"batch {batch} flies to {instance}, which is gone")


def _check_parts(flight: Flight) -> None:
    """Each stage that a flight passes takes each of its rows once, in order."""
    covered: dict[int, int] = {}
    for part, hop in zip(flight.parts, flight.hops, strict=bool(flight.parts)):
        if part.first != covered.get(part.stage, 0) or part.count > hop.instance.pool.plan.batch:
            raise InvariantViolation(f"batch {flight.batch}: {part} does not fit its stage")
        covered[part.stage] = part.end
    if any(end != flight.size for end in covered.values()):
        raise InvariantViolation(f"batch {flight.batch}: {covered} of {flight.size} rows run")

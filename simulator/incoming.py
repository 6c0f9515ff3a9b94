"""Arrivals as the requests that a dispatcher is told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.domain.arrivals import Arrival
from penstock.domain.errors import InvalidInput
from penstock.domain.ids import RequestId
from penstock.domain.plan import Plan
from penstock.domain.requests import Request
from penstock.domain.units import Micros


def check_models(plan: Plan, arrivals: Sequence[Arrival]) -> None:
    """See that a plan has every model that is asked for.

    Raises:
        InvalidInput: the first arrival that names another.
    """
    known = {model.model for model in plan.models}
    if known.issuperset({each.model for each in arrivals}):
        return
    for number, each in enumerate(arrivals):
        if each.model not in known:
            place, expected = f"line {number + 2}", f"a model of {sorted(known)}"
            raise InvalidInput("trace", place, expected, repr(each.model))


def requests_of(plan: Plan, arrivals: Sequence[Arrival]) -> Iterator[tuple[Micros, Request]]:
    """Yield each request and its instant when it is due, so that not all of them have to be kept.

    Args:
        plan: its `slo_us` bounds requests whose arrival names none.
        arrivals: in order of time.
    """
    slos = {model.model: model.slo_us for model in plan.models}
    for number, each in enumerate(arrivals):
        slo_us = each.slo_us if each.slo_us is not None else slos[each.model]
        request = Request(
            id=RequestId(number),
            model=each.model,
            samples=each.samples,
            arrival_us=each.arrival_us,
            deadline_us=each.arrival_us + slo_us,
        )
        yield each.arrival_us, request
